"""Record what the real MXNet computes: mxnet_batchnorm.json and mxnet_first_layer.json.

Needs an environment of its own, Python 3.11 at most: pip install mxnet==1.9.1 numpy==1.23.5
The inputs (x, dy, parameters) are those of the stored mxnet_batchnorm.json. Writes only what is
missing, and compares what is there: delete a file to record it anew.
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
    if wrong:
        sys.exit(f"Other numbers than recorded: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
