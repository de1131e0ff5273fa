"""The checkers of the exercises, a file for each lesson, which is loaded when it is needed."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path

from helpers.course import questions
from helpers.course.checkers.checker import Checker

# lesson's number → module, which is named like the lesson
FILES = {
    path.stem[:2]: path.stem[3:]
    for path in sorted(questions.FOLDER.glob("*.yaml"))
    if Path(__file__).with_name(f"{path.stem[3:]}.py").is_file()
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
