"""What the questions on swapping a backbone claim, where no notebook cell shows it."""

import copy

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, box_iou

from helpers.audit.census import build
from helpers.compare import compare
from helpers.course.diagrams.parts import parts_diagram, parts_of
from helpers.faster_rcnn import walk
from helpers.inputs.scenes import scenes
from helpers.networks.detector import evaluate, load_body, load_detector
from helpers.norms import freeze, norm_layers, recalibrate


def test_other_keys_leave_levels_out():
    model, [(image, _)] = load_detector(), scenes(18, 2018)[17:]
    renamed = copy.deepcopy(model)
    renamed.backbone.body.return_layers = {f"layer{k}": str(k + 1) for k in (1, 2, 3, 4)}
    assert walk(model, image).pooled_from.unique().tolist() == [2, 3, 4]
    walked = walk(renamed, image)
    assert walked.pooled_from.unique().tolist() == [2, 3]
    with torch.no_grad():
        assert torch.equal(walked.result["boxes"], renamed([image])[0]["boxes"])


def proposed(model):
    """The share of objects that some proposal overlaps by half."""
    pairs = [(walk(model, image).proposals, target["boxes"]) for image, target in scenes(40, 2018)]
    best = torch.cat([box_iou(objects, proposals).amax(1) for proposals, objects in pairs])
    return (best >= 0.5).double().mean()


def test_raw_images_spoil_the_first_layers_statistics_only():
    model, images = load_detector(), torch.stack([image for image, _ in scenes(64, 2019)])
    raw = norm_layers(recalibrate(model.backbone.body, [images]))
    ratios = [
        layer.running_var.sum() / raw[name].running_var.sum()
        for name, layer in norm_layers(model.backbone.body).items()
    ]
    assert ratios[0] > 15 and all(0.9 < ratio < 1.1 for ratio in ratios[1:])


def test_default_anchors_cost_most():
    anchors, scale = load_detector(), load_detector()
    anchors.rpn.anchor_generator = AnchorGenerator(
        tuple((size,) for size in (32, 64, 128, 256, 512)), ((0.5, 1.0, 2.0),) * 5
    )
    scale.roi_heads.box_roi_pool = MultiScaleRoIAlign(list("0123"), 7, 2)
    changed = {"right": load_detector(), "eps": freeze(load_detector(), 1e-3)}
    changed |= {"scale": scale, "anchors": anchors}
    recall = {name: evaluate(model, scenes(40, 2018)).recall for name, model in changed.items()}
    assert recall["eps"] == recall["right"] > recall["scale"] > recall["right"] - 0.05
    assert recall["anchors"] < recall["right"] - 0.5  # raw statistics: asserted in the notebook
    assert proposed(changed["right"]) == 1 and 0.25 < proposed(anchors) < 0.3
    variances = [layer.running_var.min() for layer in norm_layers(changed["right"]).values()]
    assert round(min(variances).item(), 2) == 0.15
    for image, _ in scenes(40, 2018):
        assert (walk(scale, image).pooled_from == 2).all()


def test_comparing_bodies_does_not_show_the_detectors_mean():
    right, wrong = load_detector(), load_detector()
    wrong.transform.image_mean = [0.0] * 3
    [(image, _)], classifier = scenes(1, 2018), load_body()
    x = right.transform([image])[0].tensors
    layer4 = [compare(classifier, m.backbone.body, x)["layer4"].relative for m in (right, wrong)]
    assert layer4 == [0, 0] and not torch.allclose(wrong.transform([image])[0].tensors, x)
    for other in freeze(wrong.backbone.body, 0.1), recalibrate(wrong.backbone.body, [x * 2]):
        assert compare(classifier, other, x)["layer4"].relative > 0.01


def test_the_diagram_says_what_the_detector_holds():
    detector = build("fasterrcnn_resnet50_fpn_v2")
    _, words = parts_diagram({"v2": detector})
    assert "v2, body: 23.3 of 23.5 M train, 53 BatchNorm2d" in words
    assert "v2, FPN: 3.3 of 3.3 M train, 8 BatchNorm2d" in words
    sizes = [p.numel() for p in detector.parameters()]
    assert abs(sum(size for _, size, *_ in parts_of(detector).values()) - sum(sizes) / 1e6) < 1e-3
    assert parts_of(build("fasterrcnn_resnet50_fpn"))["body"][3]
