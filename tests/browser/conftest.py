"""One JupyterLab for all browser tests, and a Chromium for each file of them."""

import pytest

pytest.register_assert_rewrite("lab", "widgets", "explorers")

from explorers import EXPLORERS  # noqa: E402
from lab import Lab, find_chromium, headless  # noqa: E402


@pytest.fixture(scope="session")
def chromium():
    return find_chromium()


@pytest.fixture(scope="module")  # no longer: Playwright's event loop would run in other tests
def browser(chromium):
    with headless(chromium) as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture(scope="module", params=EXPLORERS)
def notebook(request):
    return request.param
