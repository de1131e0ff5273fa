"""Proofs of the answers about auditing one's own model."""

import torch

from helpers.audit import audit, audit_builder
from helpers.compare import compare
from helpers.course.checkers.audit_your_model import network


def test_compare_sees_no_moving_statistics():
    model, trained = network().train(), network()
    rows = compare(trained, model, torch.ones(1, 3, 8, 8), dtype="float64")
    assert all(row.relative <= row.rounding for row in rows.values())
    assert [finding.code for finding in audit(model).findings] == ["statistics-move"]


def test_coco_weights_keep_the_eps_of_their_layers():
    name = "fasterrcnn_mobilenet_v3_large_fpn"
    pretrained, coco = (audit_builder(name, weights) for weights in ("pretrained", "coco"))
    assert [finding.code for finding in pretrained.findings] == ["eps-differs"]
    assert not coco.findings and {layer.eps for layer in coco.layers} == {1e-5}
