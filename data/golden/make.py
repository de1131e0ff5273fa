"""Record what the real MXNet computes: the three files mxnet_*.json.

Needs an environment of its own, Python 3.11 at most: pip install mxnet==1.9.1 numpy==1.23.5
The inputs are those of the stored mxnet_batchnorm.json and mxnet_rescale.json, which it compares.
mxnet_first_layer.json it writes if missing: delete that file to record it anew. Of GluonCV it only
has the Rescale layer, written out with the constants of 0.2.0: README.md.
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
    """A new BatchNorm with the recorded settings and parameters."""
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
    return {name: getattr(layer, name).data().asnumpy().tolist() for name in STATE}


def gradients(layer, x):
    found = {"dx": x.grad.asnumpy().tolist()}
    for name in ("gamma", "beta"):
        parameter = getattr(layer, name)
        found[f"d{name}"] = (
            None if parameter.grad_req == "null" else parameter.grad().asnumpy().tolist()
        )
    return found


def record_case(case, recorded):
    """What a layer computes in predict mode, and in training before and after its backward."""
    x, dy = mx.nd.array(recorded["x"]), mx.nd.array(recorded["dy"])
    x.attach_grad()
    found = {}
    layer = layer_of(case, recorded["params"])
    found["predict_y"] = layer(x).asnumpy().tolist()
    found["predict_state_after"] = state(layer)

    layer = layer_of(case, recorded["params"])
    with autograd.record():
        y = layer(x)
    found["train_y"] = y.asnumpy().tolist()
    found["train_state_after_forward_only"] = state(layer)
    y.backward(dy)
    found["train_state_after_backward"] = state(layer)
    found |= {f"train_{name}": value for name, value in gradients(layer, x).items()}

    for _ in range(2):
        with autograd.record():
            y = layer(x)
        y.backward(dy)
    mx.nd.waitall()
    found["state_after_3_train_steps"] = state(layer)
    return found


def record_first_layer(recorded):
    """BatchNorm on raw input, then a trainable factor: does a training step move its statistics?

    Nothing before the layer needs a gradient. Once with its own beta trained, once without.
    """
    x, found = mx.nd.array(recorded["x"]), {}
    for name in ("scaleF", "scaleF_centerF"):
        layer = layer_of(recorded["cases"][name], recorded["params"])
        factor = mx.nd.ones((1,))
        factor.attach_grad()
        with autograd.record():
            loss = (layer(x) * factor).sum()
        loss.backward()
        mx.nd.waitall()
        found[name] = {
            "repr": recorded["cases"][name]["repr"],
            "gradient_of_the_factor": factor.grad.asnumpy().tolist(),
            "state_after_backward": state(layer),
        }
    return {"meta": {"mxnet": mx.__version__, "numpy": np.__version__}, "cases": found}


class Rescale(gluon.HybridBlock):
    """GluonCV 0.2.0's, model_zoo/faster_rcnn/resnet50_v2a.py, from its two constants."""

    def __init__(self, recorded):
        super().__init__()
        with self.name_scope():
            for name, key in (("init_scale", "std"), ("init_mean", "mean")):
                value = mx.nd.array(recorded[key]).reshape((1, 3, 1, 1)) * 255
                setattr(self, name, self.params.get_constant(name, value))

    def hybrid_forward(self, F, x, init_scale, init_mean):
        return F.broadcast_add(F.broadcast_mul(x, init_scale), init_mean)


def record_rescale(recorded):
    """From levels to Rescale's output, and its round trip on every level of every channel."""
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
    found, file = record_first_layer(recorded), HERE / "mxnet_first_layer.json"
    if not file.exists():
        file.write_text(json.dumps(found, indent=1) + "\n")
    stored = json.loads(file.read_text())["cases"]
    for name, case in found["cases"].items():
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
