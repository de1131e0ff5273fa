"""An exercise as data: a checker that names the mistake, hints, a solution."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

_WORDS = {True: "Right", False: "Not yet", None: "Not attempted yet"}


def markup(text: str) -> str:
    """HTML of a plain text whose code stands between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def panel(ok: bool | None, word: str, text: str) -> str:
    """HTML of a verdict: said in a word, and underlined by the color of its border."""
    color = {True: "success", False: "error", None: "border"}[ok]
    style = f"border-left: 4px solid var(--jp-{color}-color1, currentColor); padding: 2px 0.8em"
    return f'<div style="{style}"><strong>{word}:</strong> {markup(text)}</div>'


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a checker says: `ok` is True, False, or None for an exercise not attempted yet."""

    ok: bool | None
    text: str

    def __repr__(self):
        return f"{_WORDS[self.ok]}: {self.text}"

    def _repr_html_(self):
        return panel(self.ok, _WORDS[self.ok], self.text)


@dataclass(frozen=True)
class Task:
    """An exercise. `checker` takes the reader's attempt and returns a Verdict, or lets the
    attempt's own exception through. `hints` rise: where to start, then the common error.
    The last definition in `solution` (Python source) is an attempt that passes.
    """

    title: str
    difficulty: int  # 1 to 3
    minutes: int
    checker: Callable[[object], Verdict]
    hints: tuple[str, ...]
    solution: str


def is_empty(value) -> bool:
    return value is None or value is ...


RETURNS_NOTHING = Verdict(
    None, "your function returns nothing: write its body, and end it with a `return`."
)


_CHANGED = (
    "your function changes its argument in place, and a second call would start from the changed "
    "values: return a new tensor."
)


def is_bool(value) -> bool:
    return isinstance(value, bool) or (
        getattr(value, "shape", None) == () and str(value.dtype).endswith("bool")
    )


def has_shape(value, shape) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == shape


def formula_checker(right: Callable, praise: str, mistakes: tuple[tuple[str, Callable], ...]):
    """A checker of functions (running_var, eps_trained, eps_layer) → tensor of its shape.

    It compares with the formula `right`, and with the wrong ones, each after what to say of it.
    """
    variance = torch.tensor([2.0, 0.1, 1e-2, 2e-3], dtype=torch.float64)
    pairs = (1e-3, 1e-5), (1e-5, 1e-3), (1e-5, 1e-4)

    def otherwise(answer):
        return (
            "for running_var 0.1, eps_trained 1e-3 and eps_layer 1e-5 the answer is "
            f"{right(variance, *pairs[0])[1]:.5f}, and yours is {answer[1]:.5f}."
        )

    cases = [(variance, *eps) for eps in pairs]
    return same_formula(cases, right, praise, mistakes, otherwise, "one value for each channel")


def same_formula(
    cases: Sequence[tuple],
    right: Callable,
    praise: str,
    mistakes: tuple[tuple[str, Callable], ...],
    otherwise: Callable[[Tensor], str],
    holding: str,
):
    """A checker of functions that map each of `cases`, a tuple of arguments, to a tensor.

    It compares with the formula `right`, and with the wrong ones, each after what to say of it;
    `otherwise` says what to make of another answer to the first case, `holding` what the tensor
    has to hold.
    """

    def clones(arguments):
        return [a.clone() if isinstance(a, Tensor) else a for a in arguments]

    def checker(attempt) -> Verdict:
        given = [clones(case) for case in cases]
        answers = [attempt(*arguments) for arguments in given]
        if all(is_empty(answer) for answer in answers):
            return RETURNS_NOTHING
        for case, arguments in zip(cases, given, strict=True):
            for before, after in zip(case, arguments, strict=True):
                if isinstance(before, Tensor) and not torch.equal(before, after):
                    return Verdict(False, _CHANGED)
        wanted = [right(*case) for case in cases]
        if not all(has_shape(a, w.shape) for a, w in zip(answers, wanted, strict=True)):
            return Verdict(False, f"return a tensor with {holding}.")

        def follow(formula) -> bool:
            return all(
                torch.allclose(a.to(w), w, rtol=1e-6, atol=0)
                for a, w in zip(answers, (formula(*case) for case in cases), strict=True)
            )

        if follow(right):
            return Verdict(True, praise)
        for mistake, formula in mistakes:
            if follow(formula):
                return Verdict(False, mistake)
        return Verdict(False, otherwise(answers[0]))

    return checker


def name_checker(
    cases: Callable[[], Iterable[tuple[str, tuple]]], symptoms: Mapping[str, str], praise: str
) -> Callable[[Callable], Verdict]:
    """A checker of functions that name what they are given: `cases` gives (name, arguments).

    `symptoms`: each name → by what it can be told, for one who called it otherwise.
    """

    def checker(attempt) -> Verdict:
        for name, arguments in cases():
            answer = attempt(*arguments)
            if is_empty(answer):
                return RETURNS_NOTHING
            if answer not in symptoms:
                names = ", ".join(f'"{known}"' for known in symptoms)
                return Verdict(False, f"return one of the names {names}.")
            if answer != name:
                return Verdict(False, f'you call "{answer}" what is "{name}": {symptoms[name]}.')
        return Verdict(True, praise)

    return checker
