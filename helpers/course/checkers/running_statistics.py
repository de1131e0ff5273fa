"""The exercise on running statistics."""

import torch

from helpers.course.checkers.checker import RETURNS_NOTHING, Checker, is_empty, to_tensor, uniform

WITHIN, BETWEEN = uniform(8, seed=1, low=0.2), uniform(8, seed=2, low=0.2)
WHOLE, NOISE = WITHIN + BETWEEN, 0.04 * uniform(8, seed=3, low=-0.5)

LOGS = {  # what is said of another number → what a layer has stored, and the right number
    "batches of one left within alone, and you return {}. What is missing is 1/B of between, "
    "not of within + between.": (WITHIN, 1),
    "batches of two left running_var within 2 % of the law, and you return {}: allow for "
    "noise, use all channels, and round.": ((WITHIN + BETWEEN / 2) * (1 + NOISE), 2),
    "images of less contrast left 70 % of the variance in every channel, and you return {}. No "
    "batch size explains that: 1/B is one share of between for all channels.": (0.7 * WHOLE, 0),
    "half of between is there too much in every channel, and you return {}: what is missing "
    "must be a positive share.": (WHOLE + BETWEEN / 2, 0),
}


def find_mistake(attempt) -> str | None:
    for says, (stored, wanted) in LOGS.items():
        answer = attempt(WITHIN.clone(), BETWEEN.clone(), stored.clone())
        if is_empty(answer):
            return RETURNS_NOTHING
        number = to_tensor(answer)
        if number is None or number.numel() != 1:
            return "return one whole number for the layer."
        if number.item() != wanted:
            return says.format(f"{number.item():.3g}")
    return None


def batch_size(within, between, stored, part=lambda w, b: b, tolerance=0.1):
    missing = (within + between - stored) / part(within, between)
    return 0 if missing.std() > tolerance else round(1 / missing.mean().item())


CHECKERS = {
    "03-log": Checker(
        find_mistake,
        praise="the share of between that is missing is 1/B; where it differs from channel to "
        "channel, other images are the cause.",
        wrong={
            "not of within + between": lambda *log: batch_size(*log, part=torch.add, tolerance=9),
            "allow for noise": lambda *log: batch_size(*log, tolerance=1e-6),
            "images of less contrast": lambda *log: batch_size(*log, tolerance=9),
            "must be a positive share": batch_size,
            "one whole number": lambda within, between, stored: between / stored,
        },
    )
}
