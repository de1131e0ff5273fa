"""Proofs of the answers about auditing one's own model."""

import torch
from torchvision.ops import FrozenBatchNorm2d

from helpers.audit import audit, audit_builder
from helpers.compare import compare
from helpers.course.checkers.audit_your_model import network
from helpers.norms import norm_layers


def test_compare_sees_no_moving_statistics():
    model, trained = network().train(), network()
    rows = compare(trained, model, torch.ones(1, 3, 8, 8), dtype="float64")
    assert all(row.relative <= row.rounding for row in rows.values())
    assert [finding.code for finding in audit(model).findings] == ["statistics-move"]


def test_weights_fit_the_eps_of_the_layers_they_were_trained_in():
    name = "fasterrcnn_mobilenet_v3_large_fpn"
    pretrained, coco = (audit_builder(name, weights) for weights in ("pretrained", "coco"))
    assert [finding.code for finding in pretrained.findings] == ["eps-differs"]
    assert not coco.findings and {layer.eps for layer in coco.layers} == {1e-5}
    tuned, mended = network(FrozenBatchNorm2d, 1e-5), network(FrozenBatchNorm2d, 1e-3)
    mended.load_state_dict(tuned.state_dict())
    assert {layer.eps for layer in norm_layers(mended).values()} == {1e-3}
    assert compare(tuned, mended, torch.ones(1, 3, 8, 8), at="body.1")["body.1"].relative > 0.1
