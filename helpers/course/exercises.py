"""What a reader answers: predict and quiz (questions/), check, hint and solution (tasks/)."""

from collections import Counter
from difflib import get_close_matches

import ipywidgets as W
from IPython.display import display

from helpers.course.checkers import TASKS, Verdict, markup, panel
from helpers.course.questions import QUESTIONS, Question

_STYLE = """<style>
.helpers-questions, .helpers-questions .jupyter-widgets { overflow: visible; }
.helpers-questions .jupyter-widgets-disconnected::before,
.helpers-questions.jupyter-widgets-disconnected::before { display: none; }
.helpers-question { max-width: 46em; margin: 0 0 0.8em; }
.helpers-question .jupyter-widgets { width: auto; margin: 0; }
.helpers-question .widget-html-content, .helpers-options label { line-height: 1.5;
  font-size: var(--jp-content-font-size1, 14px); color: var(--jp-content-font-color1, inherit); }
.helpers-options { width: auto; margin: 0.4em 0; }
.helpers-options > div { margin: 0 !important; }
.helpers-options label { display: flex; gap: 0.6em; align-items: baseline; height: auto;
  margin: 0; padding: 0.15em 0; white-space: normal; cursor: pointer; }
.helpers-options input { order: -1; flex: none; height: auto; margin: 0 0 0 2px;
  position: relative; top: 0.1em; }
.helpers-feedback { display: grid; }
.helpers-feedback > *, .helpers-ghosts > * { grid-area: 1 / 1; }
.helpers-ghosts { display: grid; visibility: hidden; }
.helpers-question:not(:has(input:checked)) .helpers-prompt { visibility: visible; }
</style>"""


def _find(table: dict, key: str, kind: str):
    """table[key]. Raises LookupError, a sentence with the nearest keys, if there is none."""
    if key in table:
        return table[key]
    near = get_close_matches(key, table) or sorted(table)
    raise LookupError(f"There is no {kind} {key!r}; near it: {', '.join(near)}.")


def _lettered(question: Question) -> list[str]:
    return [f"{letter}. {o.text}" for letter, o in zip("ABCDEFGH", question.options, strict=False)]


def _text(question: Question, number: str) -> str:
    return "\n".join([number + question.text, *("   " + line for line in _lettered(question))])


def _widget(question: Question, number: str) -> W.VBox:
    panels = [panel(o.right, "Right" if o.right else "Wrong", o.reason) for o in question.options]
    plain = W.HTML()  # its layout and style serve them all: a model each would fill the notebook
    look = {"layout": plain.layout, "style": plain.style}
    ask = W.HTML(f"<strong>{number}{markup(question.text)}</strong>", **look)
    radio = W.RadioButtons(options=_lettered(question), value=None).add_class("helpers-options")
    stack = W.Stack([W.HTML(panel, **look) for panel in panels])
    # Invisible copies of all panels keep the height of the longest, at any width of the page.
    prompt = '<em class="helpers-prompt">Choose one: the reason appears here.</em>'
    ghosts = W.HTML(f'<div class="helpers-ghosts">{prompt}{"".join(panels)}</div>', **look)
    W.jslink((radio, "index"), (stack, "selected_index"))
    feedback = W.Box([ghosts, stack]).add_class("helpers-feedback")
    return W.VBox([ask, radio, feedback]).add_class("helpers-question")


def _show(questions: list[tuple[Question, str]]):
    widgets = [_widget(question, number) for question, number in questions]
    style = W.HTML(_STYLE, layout={"display": "none"})
    box = W.VBox([style, *widgets]).add_class("helpers-questions")
    text = "\n\n".join(_text(question, number) for question, number in questions)
    # A widget's own text names the model, and differs with every run.
    display({**box._repr_mimebundle_(), "text/plain": text}, raw=True)


def predict(key: str) -> None:
    """Displays the question `key` as radio buttons; a choice shows whether it is right, and why.

    Works in the page alone, without a kernel. Raises LookupError for an unknown key.
    """
    _show([(_find(QUESTIONS, key, "question"), "")])


def quiz(*keys: str) -> None:
    """Displays several questions, numbered, in one output; otherwise as `predict`."""
    questions = [_find(QUESTIONS, key, "question") for key in keys]
    _show([(question, f"{n}. ") for n, question in enumerate(questions, 1)])


def check(key: str, attempt) -> Verdict:
    """The verdict on an attempt at the exercise `key`; as a cell's last line it shows itself.

    An attempt of `...` or None is "not attempted yet", and one that raises gets its exception
    named: neither raises here. Raises LookupError for an unknown key.
    """
    task = _find(TASKS, key, "exercise")
    if attempt is None or attempt is ...:
        return Verdict(None, "replace the `...` and run the cell again.")
    if not callable(attempt):
        return Verdict(False, "pass the function itself, not what it returns.")
    try:
        return task.checker(attempt)
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        return Verdict(False, f"your code raises {type(error).__name__}: {reason}")


class _Markdown(str):
    """A text that shows itself, and is itself as text/plain."""

    __repr__ = str.__str__

    def _repr_markdown_(self):
        return str(self)


_hints_shown: Counter[str] = Counter()


def hint(key: str) -> str:
    """The hints on the exercise `key`, one more with each call. Raises LookupError."""
    hints = _find(TASKS, key, "exercise").hints
    _hints_shown[key] += 1
    lines = [f"Hint {n} of {len(hints)}: {text}" for n, text in enumerate(hints, 1)]
    lines.append(f'That was the last hint; `solution("{key}")` shows a solution.')
    return _Markdown("\n\n".join(lines[: _hints_shown[key]]))


def solution(key: str) -> str:
    """The source of a solution of the exercise `key`. Raises LookupError."""
    return _Markdown(f"```python\n{_find(TASKS, key, 'exercise').solution}```")
