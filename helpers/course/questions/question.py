"""A question as data: its options, and a reason for each of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One answer to choose, and why it is right or wrong."""

    text: str
    right: bool
    reason: str


@dataclass(frozen=True)
class Question:
    """A question with exactly one right option.

    `proof` names what proves the answer: "tests/file.py::test" or "notebooks/file.ipynb::cell id".
    Raises ValueError unless one option is right and all option texts differ.
    """

    text: str
    options: tuple[Option, ...]
    proof: str

    def __post_init__(self):
        right = sum(option.right for option in self.options)
        if right != 1:
            raise ValueError(f"{self.text!r} has {right} right options, not 1")
        if len({option.text for option in self.options}) < len(self.options):
            raise ValueError(f"{self.text!r} has two options with the same text")


def right(text: str, reason: str) -> Option:
    return Option(text, True, reason)


def wrong(text: str, reason: str) -> Option:
    return Option(text, False, reason)
