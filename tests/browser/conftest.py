"""One JupyterLab and one Chromium for the browser tests."""

import pytest

pytest.register_assert_rewrite("lab", "explorers")

from lab import Lab, find_chromium, headless  # noqa: E402


@pytest.fixture(scope="module")  # no longer: Playwright's event loop would run in other tests
def browser():
    with headless() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    find_chromium()
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()
