"""What the checkers of all exercises share: verdicts, and the usual ways to find a mistake."""

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real

import torch
from torch import Tensor

WORDS = {True: "Right", False: "Not yet", None: "Not attempted yet"}
COLORS = {True: "success", False: "error", None: "border"}
RETURNS_NOTHING = "your function returns nothing: write its body, and end it with a `return`."
CHANGES_ITS_ARGUMENT = (
    "your function changes its argument in place, and a second call would start from the changed "
    "values: return a new tensor."
)

Attempts = Mapping[str | None, Callable]  # what is said of it → a wrong attempt


@dataclass(frozen=True, repr=False)
class Verdict:
    """What is said of an attempt: `ok` is True, False, or None for one not made yet."""

    ok: bool | None
    text: str

    def __repr__(self):
        return f"{WORDS[self.ok]}: {self.text}"

    def _repr_html_(self):
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(self.text, quote=False))
        color = f"var(--jp-{COLORS[self.ok]}-color1, currentColor)"
        return (
            f'<div style="border-left: 4px solid {color}; padding: 2px 0.8em">'
            f"<strong>{WORDS[self.ok]}:</strong> {text}</div>"
        )


@dataclass(frozen=True)
class Checker:
    """The checker of an exercise, with the wrong attempts that it must name.

    `find_mistake` takes the reader's function and returns a sentence on its mistake, or None; it
    lets the function's own exceptions through. `praise` is said of a right attempt. The keys of
    `wrong` are that sentence, or a part of it.
    """

    find_mistake: Callable[[Callable], str | None]
    praise: str
    wrong: Attempts

    def __call__(self, attempt: Callable) -> Verdict:
        mistake = self.find_mistake(attempt)
        if mistake is None:
            return Verdict(True, self.praise)
        return Verdict(None if mistake is RETURNS_NOTHING else False, mistake)


def uniform(*shape: int, seed: int, low: float = 0.0) -> Tensor:
    """Numbers from low to low + 1, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return low + torch.rand(*shape, generator=generator, dtype=torch.float64)


def is_empty(value) -> bool:
    """Whether an attempt returned nothing, or the dots it was given with."""
    return value is None or value is ...


def to_tensor(value) -> Tensor | None:
    """A float64 tensor of a number, or of a list or tensor of numbers; None of anything else."""
    try:
        return torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError, RuntimeError):
        return None


def agree(given, wanted) -> bool:
    """Whether all numbers agree up to rounding; `wanted` may hold tensors, in lists and dicts."""
    if isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(agree(given[k], wanted[k]) for k in wanted)
    a, b = to_tensor(given), to_tensor(wanted)
    if b is None:
        return len(given) == len(wanted) and all(map(agree, given, wanted))
    return a is not None and a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=0)


def form(value) -> str:
    """What a value is, but for its numbers."""
    match value:
        case Real():
            return "one number"
        case Tensor():
            return f"a tensor of shape {tuple(value.shape)}"
        case list() if to_tensor(value) is not None:
            return f"a list of {len(value)} numbers"
    return f"a {type(value).__name__}"


def recognize(answers: Sequence, cases: Sequence[tuple], attempts: Attempts, otherwise=None):
    """The key of the first of `attempts` that gives these answers to `cases`, or `otherwise`."""
    for says, attempt in attempts.items():
        if agree(answers, [attempt(*case) for case in cases]):
            return says
    return otherwise


def same_values(
    cases: Sequence[tuple],
    right: Callable,
    praise: str,
    mistakes: Attempts,
    wrong: Attempts | None = None,
) -> Checker:
    """A checker of functions that must give the same numbers as `right` for the same arguments.

    cases: arguments, a tuple each. mistakes: functions that are known by their answers, each with
    the whole sentence on it.
    """

    def find_mistake(attempt) -> str | None:
        given = copy.deepcopy(cases)
        answers = [attempt(*arguments) for arguments in given]
        if all(map(is_empty, answers)):
            return RETURNS_NOTHING
        if not agree(given, cases):
            return CHANGES_ITS_ARGUMENT
        wanted = [right(*case) for case in cases]
        for answer, meant in zip(answers, wanted, strict=True):
            if form(answer) != form(meant):
                return f"return {form(meant)}, not {form(answer)}."
        if agree(answers, wanted):
            return None
        return recognize(answers, cases, mistakes) or difference(answers, wanted)

    def difference(answers, wanted) -> str:
        n = next(n for n, meant in enumerate(wanted) if not agree(answers[n], meant))
        a, b = to_tensor(answers[n]).flatten(), to_tensor(wanted[n]).flatten()
        k = next(k for k in range(len(b)) if not agree(a[k], b[k]))
        which = f", value {k + 1} of {len(b)}," if len(b) > 1 else ""
        where = f"in test case {n + 1}"
        if all(not isinstance(argument, Tensor) or argument.numel() < 5 for argument in cases[n]):
            texts = (x.tolist() if isinstance(x, Tensor) else x for x in cases[n])
            named = zip(inspect.signature(right).parameters, texts, strict=False)
            where = "for " + ", ".join(f"{name} = {text}" for name, text in named)
        return f"{where} the answer{which} is {b[k]:.6g}, and yours is {a[k]:.6g}."

    return Checker(find_mistake, praise, {**mistakes, **(wrong or {})})


def same_choice(
    cases: Callable[[], Iterable[tuple[str, tuple]]], praise: str, wrong: Attempts
) -> Checker:
    """A checker of functions that choose: True or False, or one of several names.

    `cases` gives pairs: what to say of another choice, in which `{answer}` stands for it; and the
    arguments, with the right choice after them.
    """

    def find_mistake(attempt) -> str | None:
        choices = {case[-1]: None for _, case in cases()}
        for says, (*arguments, wanted) in cases():
            answer = attempt(*copy.deepcopy(arguments))
            if is_empty(answer):
                return RETURNS_NOTHING
            if getattr(answer, "shape", None) == ():  # a truth value of torch's or NumPy's
                answer = answer.item()
            if not isinstance(answer, type(wanted)) or answer not in choices:
                return f"return one of {', '.join(map(repr, choices))}."
            if answer != wanted:
                return says.replace("{answer}", str(answer))
        return None

    return Checker(find_mistake, praise, wrong)
