"""The checkers of the exercises, a file for each lesson, which is loaded when it is needed."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module

from helpers.course.checkers.checker import Checker

FILES = {
    "01": "two_backbones",
    "02": "batchnorm",
    "03": "frozen_batchnorm",
    "04": "small_batches",
    "05": "input_scaling",
    "06": "faster_rcnn_backbone",
    "07": "where_the_time_goes",
}


@cache
def load(lesson: str) -> dict[str, Checker]:
    """Key → checker of a lesson, which is given as its number; without entries if it has none."""
    name = FILES.get(lesson)
    return import_module(f"{__name__}.{name}").CHECKERS if name else {}


def load_all() -> dict[str, Checker]:
    """Key → checker of all lessons."""
    return {key: checker for lesson in FILES for key, checker in load(lesson).items()}


def find(key: str) -> Checker:
    """The checker of the exercise `key`. Raises LookupError with the nearest keys if none is."""
    lesson = str(key).partition("-")[0]
    if key not in load(lesson):
        near = get_close_matches(str(key), load_all()) or sorted(load_all())
        raise LookupError(f"There is no exercise {key!r}; near it: {', '.join(near)}.")
    return load(lesson)[key]
