"""Exercises on comparing two networks, and on eps."""

import torch

from helpers.course.checkers.task import (
    RETURNS_NOTHING,
    Task,
    Verdict,
    formula_checker,
    is_bool,
    is_empty,
)


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
        if is_empty(answer):
            return RETURNS_NOTHING
        if not is_bool(answer):
            return Verdict(False, "return one True or False for the whole map.")
        if bool(answer) != agree:
            return Verdict(False, f"{mistake}.")
    return Verdict(
        True, "one bound for the whole map, relative to its largest feature, at any scale."
    )


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
        checker=formula_checker(
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
        checker=formula_checker(
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
