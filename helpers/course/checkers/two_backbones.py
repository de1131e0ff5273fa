"""Exercises on comparing two networks, and on eps."""

import torch

from helpers.course.checkers.checker import same_choice, same_values, uniform


def maps():
    """Pairs: what to say to an attempt that is wrong on a and b; a, b and whether they agree."""
    relu = (uniform(1, 4, 8, 8, seed=0) - 0.5).relu().float()
    relu[0, 0, 0, 0] = 0
    top, zeros = relu.max(), torch.zeros(3)
    at_zeros = torch.where(relu == 0, top, 0.0)
    at_first = torch.zeros_like(relu)
    at_first[0, 0, 0, 0] = top
    nan = torch.where(at_first > 0, torch.nan, relu)
    rounding = 1 + 5e-7
    cases = {
        "a difference of rounding size, 5e-7 of each feature, must pass. `torch.equal` and `==` "
        "ask for "
        "identical bits, which rounding alone breaks.": (relu / 1000, relu / 1000 * rounding, True),
        "features of size 1e4 with a relative difference of 5e-7 must pass. An absolute tolerance "
        "asks for ever more "
        "digits as features grow; scale it by `max|a|`.": (relu * 1e4, relu * 1e4 * rounding, True),
        "features of size 1e-8 that differ by a tenth must not pass. An absolute tolerance lets "
        "everything small through; scale it by `max|a|`.": (relu * 1e-8, relu * 0.9e-8, False),
        "zeros, as after a ReLU, with a difference of 3e-6 of `max|a|` must pass. A relative "
        "tolerance for each element "
        "allows nothing at a zero; give all the same bound.": (relu, relu + 3e-6 * at_zeros, True),
        "features without a positive value must be measured by `max|a|`: `max(a)` is 0 there.": (
            -relu,
            -relu * rounding,
            True,
        ),
        "one feature of b is larger than in a by a tenth of `max|a|`, and that must not pass. A "
        "signed difference, or one of two maxima, does not "
        "see it; take `|a - b|` first.": (relu.flatten(), (relu + 0.1 * at_first).flatten(), False),
        "one feature of 256 off by 2e-4 of `max|a|` must not pass. A mean hides it among the "
        "others; take the maximum.": (relu, relu - 2e-4 * at_first, False),
        "a difference of 2e-5 of `max|a|` must not pass: the bound is 1e-5.": (
            relu,
            relu - 2e-5 * at_first,
            False,
        ),
        "a difference of 5e-6 of `max|a|` must pass: the bound is 1e-5.": (
            relu,
            relu - 5e-6 * at_first,
            True,
        ),
        "two maps of zeros agree: 0 <= 1e-5 * 0 holds. `<` denies it, and so does dividing by "
        "`max|a|`.": (zeros, zeros, True),
    }
    for a, b, where in (nan, relu, "a"), (relu, nan, "b"), (nan, nan, "both"):
        says = (
            f"a NaN in {where} must give False. Every comparison with NaN is false, so ask whether "
            "the difference is within the bound, not whether it is beyond."
        )
        cases[says] = a, b, False
    return cases.items()


def bound(a):
    return 1e-5 * a.abs().max()


VARIANCE = torch.tensor([0.1, 2.0, 1e-2, 2e-3], dtype=torch.float64)
EPS_CASES = [(VARIANCE, *eps) for eps in ((1e-3, 1e-5), (1e-5, 1e-3), (1e-5, 1e-4))]


def mended(running_var, eps_trained, eps_layer):
    return running_var + eps_trained - eps_layer


def gain(running_var, eps_trained, eps_layer):
    return ((running_var + eps_trained) / (running_var + eps_layer)).sqrt()


CHECKERS = {
    "01-tolerance": same_choice(
        maps,
        praise="one bound for the whole map, relative to its largest feature, at any scale.",
        wrong={
            "absolute tolerance asks": lambda a, b: (a - b).abs().max() <= 1e-5,
            "absolute tolerance lets": lambda a, b: (a - b).abs().max() <= 1e3,
            "for each element": lambda a, b: ((a - b).abs() <= 1e-5 * a.abs()).all(),
            "A mean hides it": lambda a, b: (a - b).abs().mean() <= bound(a),
            "A signed difference": lambda a, b: (a - b).max() <= bound(a),
            "or one of two maxima": lambda a, b: (a.max() - b.max()).abs() <= bound(a),
            "`max(a)` is 0": lambda a, b: (a - b).abs().max() <= 1e-5 * a.max(),
            "identical bits": torch.equal,
            "2e-5 of `max|a|` must not pass": lambda a, b: (a - b).abs().max() <= 10 * bound(a),
            "5e-6 of `max|a|` must pass": lambda a, b: (a - b).abs().max() <= bound(a) / 3,
            "`<` denies it": lambda a, b: (a - b).abs().max() < bound(a),
            "dividing by `max|a|`": lambda a, b: (a - b).abs().max() / a.abs().max() <= 1e-5,
            "NaN in a must give False": lambda a, b: not (a - b).abs().max() > bound(a),
            "NaN in b": lambda a, b: not (a.isnan().any() or (a - b).abs().max() > bound(a)),
            "NaN in both": lambda a, b: (
                torch.equal(a.isnan(), b.isnan()) and not (a - b).abs().max() > bound(a)
            ),
            "return one of True, False": lambda a, b: (a - b).abs() <= bound(a),
            "one of True, False": lambda a, b: float((a - b).abs().max() <= bound(a)),
        },
    ),
    "01-eps-mend": same_values(
        EPS_CASES,
        mended,
        praise="the layer adds eps_layer, and so computes with running_var + eps_trained again.",
        mistakes={
            "the sign is turned round. The layer adds eps_layer to what you store, and the sum "
            "must be running_var + eps_trained.": lambda v, trained, layer: v - trained + layer,
            "eps_trained is in, but the layer adds eps_layer on top of it: take "
            "that off.": lambda v, trained, layer: v + trained,
            "eps_layer is off, but eps_trained is missing: add it.": lambda v, trained, layer: (
                v - layer
            ),
            "eps is added to the variance, so no factor mends it: add the "
            "difference.": lambda v, trained, layer: v * trained / layer,
            "the layer takes the root itself: store a variance, not its "
            "root.": lambda v, trained, layer: (v + trained - layer).sqrt(),
        },
        wrong={
            "in place": lambda v, trained, layer: v.add_(trained).sub_(layer).clone(),
            "for running_var = [0.1, 2.0, 0.01, 0.002], eps_trained = 0.001, eps_layer = 1e-05 the "
            "answer, value 1 of 4, is 0.10099, and yours is 0.1.": lambda v, trained, layer: v,
            "a tensor of shape (4,), not a tensor of shape ()": lambda *given: given[0].mean(),
            "(4,), not a list of 4 numbers": lambda *given: mended(*given).tolist(),
        },
    ),
    "01-gain": same_values(
        EPS_CASES,
        gain,
        praise="weight cancels: only the variance and the two eps decide, for each channel anew.",
        mistakes={
            "that is the ratio of the variances, without the square root: the scale is divided by "
            "the root.": lambda v, trained, layer: (v + trained) / (v + layer),
            "inverted. A smaller eps makes the layer's scale larger, so the factor is above 1 when "
            "eps_layer < eps_trained.": lambda v, trained, layer: gain(v, layer, trained),
            "inverted, and without the square root.": lambda v, trained, layer: (
                (v + layer) / (v + trained)
            ),
            "eps stands outside the root: it is added to the variance, and the root is taken of "
            "the sum.": lambda v, trained, layer: (v.sqrt() + trained) / (v.sqrt() + layer),
        },
        wrong={"is 1.00494, and yours is 3.14658": lambda v, trained, layer: (v + trained).rsqrt()},
    ),
}
