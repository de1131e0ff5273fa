"""The exercises of the notebooks as data: a checker that names the mistake, hints, a solution.

Words between backticks are code. `exercises.check`, `hint` and `solution` show them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import torch

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


def _is_empty(value) -> bool:
    return value is None or value is ...


_RETURNS_NOTHING = Verdict(
    None, "your function returns nothing: write its body, and end it with a `return`."
)


def _is_bool(value) -> bool:
    return isinstance(value, bool) or (
        getattr(value, "shape", None) == () and str(value.dtype).endswith("bool")
    )


def _has_shape(value, shape) -> bool:
    return isinstance(value, torch.Tensor) and value.shape == shape


def _same_features_cases():
    """Yields (a, b, whether they agree, what an attempt that says otherwise gets wrong)."""
    relu = (torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5).relu()
    top = relu.max()
    at_zeros = torch.where(relu == 0, top, 0.0)
    at_first = torch.zeros_like(relu)
    at_first[0, 0, 0, 0] = top
    with_nan = torch.where(at_first > 0, torch.nan, relu)

    yield (
        relu / 1000,
        relu / 1000 * (1 + 5e-7),
        True,
        (
            "a difference of rounding size, 5e-7 of each feature, must pass. `torch.equal` and "
            "`==` ask for identical bits, which rounding alone breaks"
        ),
    )
    yield (
        relu * 1e4,
        relu * 1e4 * (1 + 5e-7),
        True,
        (
            "features of size 1e4 with a relative difference of 5e-7 must pass. An absolute "
            "tolerance asks for ever more digits as features grow; scale it by `max|a|`"
        ),
    )
    yield (
        relu * 1e-8,
        relu * 0.9e-8,
        False,
        (
            "features of size 1e-8 that differ by a tenth must not pass. An absolute tolerance "
            "lets everything small through; scale it by `max|a|`"
        ),
    )
    yield (
        relu,
        relu + 3e-6 * at_zeros,
        True,
        (
            "zeros, as after a ReLU, with a difference of 3e-6 of `max|a|` must pass. A relative "
            "tolerance for each element allows nothing at a zero; give all the same bound"
        ),
    )
    yield (
        -relu,
        -relu * (1 + 5e-7),
        True,
        "features without a positive value must be measured by `max|a|`: `max(a)` is 0 there",
    )
    yield (
        relu.flatten(),
        (relu + 0.1 * at_first).flatten(),
        False,
        (
            "one feature of b is larger than in a by a tenth of `max|a|`, and that must not pass. "
            "A signed difference, or one of two maxima, does not see it; take `|a - b|` first"
        ),
    )
    yield (
        relu,
        relu - 2e-4 * at_first,
        False,
        (
            "one feature of 256 off by 2e-4 of `max|a|` must not pass. A mean hides it among the "
            "others; take the maximum"
        ),
    )
    for size, passes in (2e-5, False), (5e-6, True):
        yield (
            relu,
            relu - size * at_first,
            passes,
            (
                f"a difference of {size:.0e} of `max|a|` must {'' if passes else 'not '}pass: "
                "the bound is 1e-5"
            ),
        )
    yield (
        torch.zeros(3),
        torch.zeros(3),
        True,
        (
            "two maps of zeros agree: 0 <= 1e-5 * 0 holds. `<` denies it, and so does dividing by "
            "`max|a|`"
        ),
    )
    for a, b, where in (with_nan, relu, "a"), (relu, with_nan, "b"), (with_nan, with_nan, "both"):
        yield (
            a,
            b,
            False,
            (
                f"a NaN in {where} must give False. Every comparison with NaN is false, so ask "
                "whether the difference is within the bound, not whether it is beyond"
            ),
        )


def _check_tolerance(attempt) -> Verdict:
    for a, b, agree, mistake in _same_features_cases():
        answer = attempt(a.clone(), b.clone())
        if _is_empty(answer):
            return _RETURNS_NOTHING
        if not _is_bool(answer):
            return Verdict(False, "return one True or False for the whole map.")
        if bool(answer) != agree:
            return Verdict(False, f"{mistake}.")
    return Verdict(
        True, "one bound for the whole map, relative to its largest feature, at any scale."
    )


def _formula_checker(right: Callable, praise: str, mistakes: tuple[tuple[str, Callable], ...]):
    """A checker of functions (running_var, eps_trained, eps_layer) → tensor of its shape.

    It compares with the formula `right`, and with the wrong ones, each after what to say of it.
    """
    variance = torch.tensor([2.0, 0.1, 1e-2, 2e-3], dtype=torch.float64)
    pairs = (1e-3, 1e-5), (1e-5, 1e-3), (1e-5, 1e-4)

    def checker(attempt) -> Verdict:
        given = [variance.clone() for _ in pairs]
        answers = [attempt(v, *eps) for v, eps in zip(given, pairs, strict=True)]
        if all(_is_empty(answer) for answer in answers):
            return _RETURNS_NOTHING
        if any(not torch.equal(v, variance) for v in given):
            return Verdict(
                False,
                "your function changes `running_var` in place, and a second call would start "
                "from the changed values: return a new tensor.",
            )
        if not all(_has_shape(answer, variance.shape) for answer in answers):
            return Verdict(False, "return a tensor with one value for each channel.")

        def follow(formula) -> bool:
            wanted = torch.stack([formula(variance, *eps) for eps in pairs])
            return torch.allclose(torch.stack(answers).to(wanted), wanted, rtol=1e-6, atol=0)

        if follow(right):
            return Verdict(True, praise)
        for mistake, formula in mistakes:
            if follow(formula):
                return Verdict(False, mistake)
        return Verdict(
            False,
            "for running_var 0.1, eps_trained 1e-3 and eps_layer 1e-5 the answer is "
            f"{right(variance, *pairs[0])[1]:.5f}, and yours is {answers[0][1]:.5f}.",
        )

    return checker


def _mended(v, trained, layer):
    return v + trained - layer


def _gain(v, trained, layer):
    return ((v + trained) / (v + layer)).sqrt()


TASKS: dict[str, Task] = {
    "01-tolerance": Task(
        "A sound criterion",
        difficulty=1,
        minutes=2,
        checker=_check_tolerance,
        hints=(
            "Begin with two numbers: the largest |a - b|, and the largest |a|. `abs()` and "
            "`max()` of a tensor give each of them.",
            "The common error is to compare element by element. After a ReLU many elements are 0, "
            "and a tolerance relative to 0 allows nothing there.",
        ),
        solution="""\
def same_features(a, b):
    return bool((a - b).abs().max() <= 1e-5 * a.abs().max())
""",
    ),
    "01-eps-mend": Task(
        "Mend the checkpoint, not the code",
        difficulty=2,
        minutes=2,
        checker=_formula_checker(
            _mended,
            "the layer adds eps_layer to it, and so computes with running_var + eps_trained again.",
            (
                (
                    "the sign is turned round. The layer adds eps_layer to what you store, and "
                    "the sum must be running_var + eps_trained.",
                    lambda v, trained, layer: v - trained + layer,
                ),
                (
                    "eps_trained is in, but the layer adds eps_layer on top of it: take that off.",
                    lambda v, trained, layer: v + trained,
                ),
                (
                    "eps_layer is off, but eps_trained is missing: add it.",
                    lambda v, trained, layer: v - layer,
                ),
                (
                    "eps is added to the variance, so no factor mends it: add the difference.",
                    lambda v, trained, layer: v * (trained / layer),
                ),
                (
                    "the layer takes the root itself: store a variance, not its root.",
                    lambda v, trained, layer: _mended(v, trained, layer).sqrt(),
                ),
            ),
        ),
        hints=(
            "The layer divides by `sqrt(stored + eps_layer)`. What must the sum under the root be?",
            "The common error is to store running_var + eps_trained: the layer then adds "
            "eps_layer as well. Store a variance, and leave the argument as it is.",
        ),
        solution="""\
def mend(running_var, eps_trained, eps_layer):
    return running_var + eps_trained - eps_layer
""",
    ),
    "01-gain": Task(
        "How far off is the scale?",
        difficulty=1,
        minutes=3,
        checker=_formula_checker(
            _gain,
            "only the variance and the two eps decide: weight cancels, and each channel has its "
            "own factor.",
            (
                (
                    "that is the ratio of the variances, without the square root: the scale is "
                    "divided by the root.",
                    lambda v, trained, layer: _gain(v, trained, layer) ** 2,
                ),
                (
                    "inverted. A smaller eps makes the layer's scale larger, so the factor is "
                    "above 1 when eps_layer < eps_trained.",
                    lambda v, trained, layer: 1 / _gain(v, trained, layer),
                ),
                (
                    "inverted, and without the square root.",
                    lambda v, trained, layer: 1 / _gain(v, trained, layer) ** 2,
                ),
                (
                    "eps stands outside the root: it is added to the variance, and the root is "
                    "taken of the sum.",
                    lambda v, trained, layer: (v.sqrt() + trained) / (v.sqrt() + layer),
                ),
            ),
        ),
        hints=(
            "Write down the scale twice, `weight / sqrt(running_var + eps)`, once with each eps, "
            "and divide what the layer computes by what was trained.",
            "The common errors are a forgotten root and a fraction upside down. Try a variance "
            "of 0: with eps_layer 100 times too small the scale is 10 times too large.",
        ),
        solution="""\
def scale_error(running_var, eps_trained, eps_layer):
    ratio = (running_var + eps_trained) / (running_var + eps_layer)
    return ratio.sqrt()
""",
    ),
}
