"""The questions: a YAML file per notebook, shown as plain HTML without kernel or widget."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from html import escape
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent

_OPTION = (
    '<details style="margin: 0.3em 0"><summary style="cursor: pointer">{}</summary>\n'
    '<p style="margin: 0.3em 0 0.6em 1.4em"><strong>{}:</strong> {}</p></details>'
)


@cache
def load(path: Path) -> dict[str, dict]:
    """Reads a file's questions by key. Raises ValueError, a sentence that names the fault."""
    try:
        questions = yaml.load(path.read_text("utf-8"), yaml.BaseLoader)  # "No" stays a word
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise ValueError(f"{path.name}, line {line}: {error.problem}.") from None
    for key, question in questions.items():
        for fault in _faults(question):
            raise ValueError(f"{path.name}, question {key}: {fault}.")
    return questions


def _faults(question: dict) -> Iterator[str]:
    for part in "text", "options", "proof":
        if part not in question or not question[part]:
            yield f"{part} is missing"
    for option in question["options"]:
        if {*option} not in ({"right", "reason"}, {"wrong", "reason"}) or "" in option.values():
            yield f"an option is a right or wrong text and its reason, not {option}"
    if (rights := sum("right" in option for option in question["options"])) != 1:
        yield f"{rights} options are right, not 1"
    if len({label[3:] for label, _, _ in choices(question)}) < len(question["options"]):
        yield "two options are alike"


def find(key: str) -> dict:
    """Finds a question by its key. Raises LookupError, a sentence with the nearest keys."""
    paths = sorted(FOLDER.glob("*.yaml"))
    lesson = key.rpartition("-")[0]  # its number, or the whole name of a deeper one
    own = [path for path in paths if lesson in (path.stem[:2], path.stem)]
    questions = {name: question for path in own or paths for name, question in load(path).items()}
    if key not in questions:
        near = ", ".join(get_close_matches(key, questions, cutoff=0))
        raise LookupError(f"There is no question {key!r}; near it: {near}.")
    return questions[key]


def choices(question: dict) -> Iterator[tuple[str, str, str]]:
    """Yields each option as its label, "Right" or "Wrong", and its reason."""
    for letter, option in zip("ABCDEFGH", question["options"], strict=False):
        verdict = "right" if "right" in option else "wrong"
        yield f"{letter}. {option[verdict]}", verdict.title(), option["reason"]


class Asked(dict):
    """Questions by their number ("1. "), which show themselves as a cell's last line."""

    def __repr__(self):
        return "\n\n".join(
            "\n   ".join([number + question["text"], *(label for label, *_ in choices(question))])
            for number, question in self.items()
        )

    def _repr_mimebundle_(self, **_):
        lines = ['<div style="max-width: 46em">']
        for number, question in self.items():
            text = _html(number + question["text"])
            lines.append(f'<p style="margin: 0.8em 0 0.4em"><strong>{text}</strong></p>')
            lines += [_OPTION.format(*map(_html, choice)) for choice in choices(question)]
        return {"text/plain": repr(self), "text/html": "\n".join([*lines, "</div>"])}


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def predict(key: str) -> Asked:
    """Asks the question `key`. Raises LookupError for an unknown key."""
    return Asked({"": find(key)})


def quiz(*keys: str) -> Asked:
    """Asks several questions, numbered; otherwise as `predict`."""
    return Asked({f"{number}. ": find(key) for number, key in enumerate(keys, 1)})
