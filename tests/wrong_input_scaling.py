"""Plausible wrong attempts at the exercises on input formats, each with words of the answer."""


def channel(vector):
    return vector[:, None, None]


def fold(weight, mean, std):
    weight = weight / channel(std)
    return weight, -(weight.sum((2, 3)) @ mean), mean


def with_color(color):
    return lambda weight, mean, std: (*fold(weight, mean, std)[:2], color(mean, std))


def bias_of_the_old_weight(weight, mean, std):
    return weight / channel(std), -(weight.sum((2, 3)) @ mean), mean


def by_thresholds(x, high=10.0, low=-1.2, middle=-0.5, half=0.75):
    if x.max() > high:
        return "0-255"
    if x.min() < low:
        return "normalized"
    if x.min() < middle:
        return "-1 to 1"
    return "halved" if x.max() < half else "right"


def in_place(weight, mean, std):
    weight /= channel(std)
    return weight, -(weight.sum((2, 3)) @ mean), mean


WRONG = {
    "05-inverse": [
        (lambda x, m, s: (x + channel(m)) * channel(s), "the order is turned round"),
        (lambda x, m, s: x * channel(s), "the mean is missing"),
        (lambda x, m, s: (x - channel(m)) / channel(s), "normalizes a second time"),
        (lambda x, m, s: x / channel(s) + channel(m), "divided where you have to multiply"),
        (lambda x, m, s: x * channel(s) - channel(m), "the mean is subtracted"),
        (lambda x, m, s: x * s + m, "along the last axis"),
        (lambda x, m, s: x.mul_(channel(s)).add_(channel(m)), "in place"),
        (lambda x, m, s: x.mean(), "a value for each of x"),
        (lambda x, m, s: x, "the first value of the first case is"),
    ],
    "05-fold": [
        (with_color(lambda m, s: 0 * m), "you pad with black"),
        (with_color(lambda m, s: -m / s), "what black becomes by normalizing"),
        (with_color(lambda m, s: 1 - m), "which color does normalizing make 0"),
        (lambda w, m, s: (w * channel(s), *fold(w, m, s)[1:]), "multiplied by std"),
        (lambda w, m, s: (fold(w, m, s)[0], -fold(w, m, s)[1], m), "the bias has the wrong sign"),
        (bias_of_the_old_weight, "the bias is made of the old weight"),
        (lambda w, m, s: (fold(w, m, s)[0], 0 * fold(w, m, s)[1], m), "the bias is not"),
        (lambda w, m, s: (w, -(w.sum((2, 3)) @ m), m), "the bias is made of the old weight"),
        (lambda w, m, s: (2 * w, fold(w, m, s)[1], m), "the weight is not that of normalizing"),
        (lambda w, m, s: fold(w, m, s)[:2], "three tensors"),
        (lambda w, m, s: (fold(w, m, s)[0], m, m), "the shapes must be"),
        (in_place, "in place"),
    ],
    "05-accident": [
        (lambda x: by_thresholds(x, high=2), 'you call "0-255" what is "normalized"'),
        (lambda x: by_thresholds(x, low=-0.9), 'you call "normalized" what is "-1 to 1"'),
        (lambda x: by_thresholds(x, half=0.4), 'you call "right" what is "halved"'),
        (lambda x: by_thresholds(x, low=-9), 'you call "-1 to 1" what is "normalized"'),
        (lambda x: by_thresholds(x, high=1000), 'you call "right" what is "0-255"'),
        (lambda x: by_thresholds(x, half=1.5), 'you call "halved" what is "right"'),
        (lambda x: "BGR", "return one of the names"),
        (lambda x: 0, "return one of the names"),
    ],
}
