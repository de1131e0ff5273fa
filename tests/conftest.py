"""What holds for all tests: the stand-in weights, also where ImageNet's are in the cache."""

import os

import pytest

os.environ["HELPERS_WEIGHTS"] = "stand-in"


def pytest_collection_modifyitems(items):
    if os.name == "nt":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="Windows has no such thing"))
