"""What a notebook asks its reader: `predict` and `quiz` show questions, `check` judges attempts."""

from helpers.course.checkers import find
from helpers.course.checkers.checker import Verdict, is_empty
from helpers.course.questions import predict, quiz

__all__ = ["check", "predict", "quiz"]


def check(key: str, attempt) -> Verdict:
    """The verdict on an attempt at the exercise `key`; as a cell's last line it shows itself.

    An attempt of `...` or None is "not attempted yet", and one that raises gets its exception
    named: neither raises here. Raises LookupError for an unknown key.
    """
    checker = find(key)
    if is_empty(attempt):
        return Verdict(None, "replace the `...` and run the cell again.")
    if not callable(attempt):
        return Verdict(False, "pass the function itself, not what it returns.")
    try:
        return checker(attempt)
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        return Verdict(False, f"your code raises {type(error).__name__}: {reason}")
