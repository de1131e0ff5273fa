"""Record again what the real MXNet computes, and compare: python -m data.golden.make

Needs an environment of its own, Python 3.11 at most: pip install mxnet==1.9.1 numpy==1.23.5
The inputs are those of the stored mxnet_batchnorm.json and mxnet_rescale.json. Where
mxnet_first_layer.json is missing, it is written. GluonCV's Rescale layer is written out here, with
the constants of 0.2.0 (README.md).
"""

import json
import sys
from pathlib import Path

import numpy as np

np.bool = bool  # which MXNet 1.9.1 still asks for

import mxnet as mx  # noqa: E402
from mxnet import autograd, gluon  # noqa: E402

HERE = Path(__file__).resolve().parent
STATE = ("gamma", "beta", "running_mean", "running_var")


def layer_of(case, parameters):
    """Make a BatchNorm with the recorded settings and parameters."""
    settings = case["kwargs"]
    layer = gluon.nn.BatchNorm(
        momentum=settings["momentum"],
        epsilon=settings["eps"],
        scale=not settings["fix_gamma"],
        center=case["grad_req"]["beta"] != "null",
        use_global_stats=settings["use_global_stats"],
        in_channels=len(parameters["gamma"]),
    )
    layer.initialize()
    for name in STATE:
        getattr(layer, name).set_data(mx.nd.array(parameters[name]))
    return layer


def state(layer):
    """Read parameters and statistics as nested lists."""
    return {name: getattr(layer, name).data().asnumpy().tolist() for name in STATE}


def gradients(layer, x):
    """Read the gradients as nested lists; None for a parameter that is not trained."""
    read = {"dx": x.grad.asnumpy().tolist()}
    for name in ("gamma", "beta"):
        parameter = getattr(layer, name)
        read[f"d{name}"] = (
            None if parameter.grad_req == "null" else parameter.grad().asnumpy().tolist()
        )
    return read


def record_case(case, recorded):
    """Record what a layer computes in predict mode, and in training before and after backward."""
    x, dy = mx.nd.array(recorded["x"]), mx.nd.array(recorded["dy"])
    x.attach_grad()
    again = {}
    layer = layer_of(case, recorded["params"])
    again["predict_y"] = layer(x).asnumpy().tolist()
    again["predict_state_after"] = state(layer)

    layer = layer_of(case, recorded["params"])
    with autograd.record():
        y = layer(x)
    again["train_y"] = y.asnumpy().tolist()
    again["train_state_after_forward_only"] = state(layer)
    y.backward(dy)
    again["train_state_after_backward"] = state(layer)
    again |= {f"train_{name}": value for name, value in gradients(layer, x).items()}

    for _ in range(2):
        with autograd.record():
            y = layer(x)
        y.backward(dy)
    mx.nd.waitall()
    again["state_after_3_train_steps"] = state(layer)
    return again


def record_first_layer(recorded):
    """Record whether a training step moves the statistics of a BatchNorm on raw input.

    Behind it stands a trainable factor; nothing before it needs a gradient. Recorded once with its
    own beta trained, once without.
    """
    x, cases = mx.nd.array(recorded["x"]), {}
    for name in ("scaleF", "scaleF_centerF"):
        layer = layer_of(recorded["cases"][name], recorded["params"])
        factor = mx.nd.ones((1,))
        factor.attach_grad()
        with autograd.record():
            loss = (layer(x) * factor).sum()
        loss.backward()
        mx.nd.waitall()
        cases[name] = {
            "repr": recorded["cases"][name]["repr"],
            "gradient_of_the_factor": factor.grad.asnumpy().tolist(),
            "state_after_backward": state(layer),
        }
    return {"meta": {"mxnet": mx.__version__, "numpy": np.__version__}, "cases": cases}


class Rescale(gluon.HybridBlock):
    """Undo normalizing, as in GluonCV 0.2.0, model_zoo/faster_rcnn/resnet50_v2a.py."""

    def __init__(self, recorded):
        super().__init__()
        with self.name_scope():
            for name, key in (("init_scale", "std"), ("init_mean", "mean")):
                value = mx.nd.array(recorded[key]).reshape((1, 3, 1, 1)) * 255
                setattr(self, name, self.params.get_constant(name, value))

    def hybrid_forward(self, F, x, init_scale, init_mean):
        return F.broadcast_add(F.broadcast_mul(x, init_scale), init_mean)


def record_rescale(recorded):
    """Record the way from levels to Rescale's output, and the round trip of every level."""
    layer = Rescale(recorded)
    layer.initialize()

    def run(levels):
        image = mx.nd.image.to_tensor(mx.nd.array(levels, dtype="uint8"))
        normalized = mx.nd.image.normalize(image, mean=recorded["mean"], std=recorded["std"])
        rescaled = layer(normalized.expand_dims(0))
        off = np.abs(rescaled.asnumpy()[0].transpose(1, 2, 0) - levels).max((0, 1))
        return image, normalized, rescaled, off

    image, normalized, rescaled, off = run(np.array(recorded["image_uint8_HWC"]))
    all_levels = np.arange(256).reshape(1, 256, 1).repeat(3, 2)
    _, darkest_to_brightest, _, off_by_level = run(all_levels)
    ends = darkest_to_brightest.asnumpy()[:, 0, [0, -1]]
    return {
        "to_tensor_CHW": image.asnumpy().tolist(),
        "normalized_CHW": normalized.asnumpy().tolist(),
        "rescaled_NCHW": rescaled.asnumpy().tolist(),
        "roundtrip_max_abs_error_vs_image255_uint8": float(off.max()),
        "roundtrip_all_256_levels": {
            "max_abs_error_per_channel": off_by_level.tolist(),
            "normalized_at_0": ends[:, 0].tolist(),
            "normalized_at_255": ends[:, 1].tolist(),
        },
        "constants": {
            name: {"value": getattr(layer, name).data().asnumpy().ravel().tolist()}
            for name in ("init_scale", "init_mean")
        },
    }


def close(a, b):
    """Tell whether all numbers of `a` are in `b` too, to 1e-6."""
    if isinstance(a, dict):
        return all(close(a[key], b[key]) for key in a)
    if a is None or b is None:
        return a is b
    return np.allclose(a, b, rtol=1e-6, atol=1e-6)


def main():
    recorded = json.loads((HERE / "mxnet_batchnorm.json").read_text())
    wrong = [
        name
        for name, case in recorded["cases"].items()
        if not close(record_case(case, recorded), case)
    ]
    print(f"mxnet_batchnorm.json: {len(recorded['cases']) - len(wrong)} cases as recorded")
    again, file = record_first_layer(recorded), HERE / "mxnet_first_layer.json"
    if not file.exists():
        file.write_text(json.dumps(again, indent=1) + "\n")
    stored = json.loads(file.read_text())["cases"]
    for name, case in again["cases"].items():
        numbers = {key: value for key, value in case.items() if key != "repr"}
        if not close(numbers, stored[name]):
            wrong.append(f"first layer, {name}")
    recorded = json.loads((HERE / "mxnet_rescale.json").read_text())
    if close(record_rescale(recorded), recorded):
        print("mxnet_rescale.json: as recorded")
    else:
        wrong.append("Rescale")
    if wrong:
        sys.exit(f"Other numbers than recorded: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
