"""The exercise on wrong inputs."""

import torch

from helpers.course.checkers.checker import same_choice, uniform
from helpers.inputs.pixels import loader_mistakes

SYMPTOMS = {
    "right": "it is the photo itself",
    "0-255": "every value is 255 times the photo's",
    "-1 to 1": "every value is twice the photo's, less 1",
    "BGR": "it is the photo with its first and last channel exchanged",
    "gamma": "it is darker, and most so in the shadows: about the power 2.2 of the photo",
    "halved": "every value is half of the photo's",
}


def accidents():
    """Pairs for same_choice: what the loader made of a photo, and the photo.

    One photo with black and white in it, a blue one and a dark one.
    """
    first, blue, dark = (uniform(3, 8, 8, seed=seed) for seed in range(3))
    first[:, 0, 0], first[:, 0, 1] = 0, 1
    blue[2] = 1 - blue[2] / 4
    blue[0] /= 2
    for photo in first, blue, dark / 2:
        for name, symptom in SYMPTOMS.items():
            made = photo if name == "right" else loader_mistakes[name](photo)
            yield f'you call "{{answer}}" what is "{name}": {symptom}.', (made, photo, name)


def by_range(x, p):
    if x.max() > 10:
        return "0-255"
    if x.min() < -0.5:
        return "-1 to 1"
    return "halved" if x.max() < 0.75 else "right"


def by_color(x, p):
    answer = by_range(x, p)
    return "BGR" if answer == "right" and x[0].mean() < x[2].mean() else answer


def by_darkness(x, p):
    if torch.equal(x, p.flip(0)):
        return "BGR"
    answer = by_range(x, p)
    return "gamma" if answer in ("halved", "right") and x.mean() < 0.9 * p.mean() else answer


CHECKERS = {
    "08-accident": same_choice(
        accidents,
        praise="with a photo that is known to be right, BGR and gamma are told, too.",
        wrong={
            'you call "right" what is "BGR"': by_range,
            'you call "BGR" what is "': by_color,
            'you call "gamma" what is "halved"': by_darkness,
        },
    )
}
