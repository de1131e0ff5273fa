"""The scene detector: its parts, its scores, its file; and the script that trains it."""

import math
import re
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from data import coco
from data.checkpoints import make
from helpers import DATA
from helpers.inputs.scenes import scenes
from helpers.networks import backbones
from helpers.networks import detector as module
from helpers.networks.detector import (
    Scores,
    detect,
    detector,
    evaluate,
    load_detector,
    rate,
    unpacked,
)
from helpers.norms import norm_layers
from helpers.stages import STAGES, stages

CARD = (DATA / "checkpoints" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trained():
    return load_detector()


@pytest.fixture(scope="module")
def held_out():
    """The scenes that the card's scores are of."""
    return scenes(make.HELD_OUT, make.HELD_OUT_SEED)


@pytest.fixture(scope="module")
def results(trained, held_out):
    return detect(trained, held_out)


# ---------------------------------------------------------------- the model


def test_any_normalization_layer():
    for make_layer, kind in (
        (partial(nn.BatchNorm2d, eps=1e-3), nn.BatchNorm2d),
        (FrozenBatchNorm2d, FrozenBatchNorm2d),
        (lambda channels: nn.GroupNorm(8, channels), nn.GroupNorm),
    ):
        model = detector(make_layer)
        layers = norm_layers(model).values()
        assert {type(layer) for layer in layers} == {kind} and len(layers) == 12
        losses = model(*map(list, zip(*scenes(1, 0), strict=True)))
        assert math.isfinite(sum(losses.values()).item())
    assert not norm_layers(detector(nn.Identity))
    for wrong in ("frozen", None, lambda channels: channels):
        with pytest.raises(TypeError, match="norm_layer is .*: give a class of layers.*replace_no"):
            detector(wrong)


# ---------------------------------------------------------------- the file


def test_loading_gives_the_same_bits_and_draws_nothing(trained):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = load_detector().state_dict()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, again[name]) for name, tensor in trained.state_dict().items())
    assert {tensor.dtype for tensor in again.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("load", [load_detector, partial(backbones.load, "detector")])
def test_a_broken_file_is_one_sentence(load, monkeypatch, tmp_path):
    broken = tmp_path / "detector.pt"
    norm_layer, file, sha256 = module.TRAINED["batch"]
    monkeypatch.setitem(module.TRAINED, "batch", (norm_layer, broken, sha256))
    for content in (None, file.read_bytes()[:-9] + b"123456789"):
        if content:
            broken.write_bytes(content)
        with pytest.raises(RuntimeError, match=r"detector.pt\) are missing or altered: .*git che"):
            load()


def test_the_other_detector_normalizes_by_groups_and_finds_about_as_much(held_out):
    model = load_detector("group")
    assert {type(layer) for layer in norm_layers(model).values()} == {nn.GroupNorm}
    assert not any("running" in name for name in model.state_dict())
    assert 0.8 < evaluate(model, held_out[:40]).recall < 0.98
    with pytest.raises(ValueError, match="No detector 'layer' here: choose one of batch, group"):
        load_detector("layer")


def test_packing_rounds_once():
    stored = make.packed(detector().eval())
    assert all((t.dtype == torch.float16) == (t.dim() > 1) for t in stored.values())
    again = make.packed(unpacked(stored))
    assert all(torch.equal(tensor, again[name]) for name, tensor in stored.items())


def test_its_body_is_one_of_the_backbones(trained):
    network = backbones.load("detector")
    assert "trained" in network.provenance and not network.training
    image = scenes(1, 0)[0][0]
    with torch.no_grad():
        x = given = network.normalize(image)[None]
        for part in stages(network).values():
            x = part(x)
        assert torch.equal(x, network(given))
        assert torch.equal(x, trained.backbone.body(given)["3"])
    assert torch.equal(given, trained.transform([image])[0].tensors)
    assert tuple(stages(network)) == STAGES
    with pytest.raises(ValueError, match="detector has one set of weights"):
        backbones.load("detector", "imagenet")


# ---------------------------------------------------------------- what it finds


def test_it_finds_held_out_shapes_as_the_card_says(held_out, results):
    scores = rate(results, held_out)
    recall, false_positives = re.search(r"as it expects.*\| (.*) \| (.*) \|", CARD).groups()
    precision = re.search(r"\(pycocotools\): (.*), at IoU", CARD)[1]
    assert 0.90 <= scores.recall <= 0.97
    # A detection on the edge of a threshold may fall on its other side elsewhere.
    assert abs(scores.recall - float(recall)) < 0.005
    assert abs(scores.false_positives - float(false_positives)) < 0.02
    assert abs(coco.average_precision(results, held_out)[0] - float(precision)) < 0.005


def test_it_finds_nothing_in_images_from_0_to_255(trained, held_out):
    few = [(255 * image, target) for image, target in held_out[:30]]
    assert evaluate(trained, few).recall <= 0.05


def test_the_cards_are_of_these_files_and_say_what_the_script_writes():
    written = ".*?".join(map(re.escape, re.split(r"\{.*?\}", make.CARD)))
    for _, file, sha256 in module.TRAINED.values():
        card = file.with_name("README.md").read_text(encoding="utf-8")
        assert sha256 in card and re.fullmatch(written, card, re.DOTALL)
        assert f"{sum(p.numel() for p in detector().parameters()):,}\nparameters" in card


# ---------------------------------------------------------------- evaluate


class Answers(nn.Module):
    """Gives prepared results, image by image."""

    def __init__(self, *results):
        super().__init__()
        self.results = list(results)
        self.eval()

    def forward(self, images):
        return [self.results.pop(0) for _ in images]


def result(boxes, labels, scores):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def scene(boxes, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.zeros(3, 8, 8), {"boxes": boxes, "labels": torch.tensor(labels).long()}


SQUARE, BESIDE, FAR = [0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]


def test_scores_of_hand_made_boxes():
    given = [scene([SQUARE, FAR], [1, 2])]
    for boxes, recall, false_positives in (
        (result([SQUARE], [1], [0.9]), 0.5, 0),
        (result([SQUARE, FAR], [1, 2], [0.9, 0.9]), 1, 0),
        (result([SQUARE], [2], [0.9]), 0, 1),  # the wrong class
        (result([SQUARE], [1], [0.4]), 0, 0),  # too unsure
        (result([SQUARE], [1], [0.5]), 0.5, 0),
        (result([BESIDE], [1], [0.9]), 0.5, 0),  # IoU 0.5 is enough
        (result([[0, 0, 10, 4.9]], [1], [0.9]), 0, 1),
        (result([SQUARE, SQUARE], [1, 1], [0.9, 0.8]), 0.5, 1),  # one object, taken once
        (result([BESIDE, SQUARE], [1, 1], [0.8, 0.9]), 0.5, 1),
        (result([], [], []), 0, 0),
    ):
        assert evaluate(Answers(boxes), given) == Scores(recall, false_positives, 2), boxes


def test_an_object_goes_to_the_better_score_and_a_detection_to_the_larger_overlap():
    two = scene([[0, 0, 10, 10], [0, 2, 10, 12]], [1, 1])
    # The first takes the object that it overlaps more, which the second then lacks.
    for other, scores in (([0, 0, 10, 9], Scores(1, 0, 2)), ([0, 4, 10, 14], Scores(0.5, 1, 2))):
        boxes = result([[0, 1.5, 10, 11.5], other], [1, 1], [0.9, 0.8])
        assert evaluate(Answers(boxes), [two]) == scores


def test_scores_are_means_over_all_scenes_whatever_the_batches():
    given = [scene([SQUARE], [1]), scene([], []), scene([SQUARE, FAR], [1, 1])]
    answers = [result([SQUARE], [1], [0.9]), result([FAR], [3], [0.7]), result([], [], [])]
    for batch_size in (1, 2, 16):
        scores = evaluate(Answers(*answers), given, batch_size=batch_size)
        assert scores == Scores(pytest.approx(1 / 3), pytest.approx(1 / 3), 3)


def test_what_cannot_be_evaluated_is_one_sentence():
    with pytest.raises(ValueError, match="train mode: call .eval()"):
        evaluate(detector(), scenes(1, 0))
    for nothing in ([], [scene([], [])]):
        with pytest.raises(ValueError, match="No objects to find"):
            evaluate(Answers(result([], [], [])), nothing)


def test_agrees_with_pycocotools(held_out, results):
    for threshold in (0.05, 0.5, 0.9):
        kept = [{k: v[each["scores"] >= threshold] for k, v in each.items()} for each in results]
        scores = rate(results, held_out, threshold)
        matched = coco_matches(kept, held_out)
        assert scores.recall == pytest.approx(matched / scores.objects)
        wrong = sum(len(each["scores"]) for each in kept) - matched
        assert scores.false_positives == pytest.approx(wrong / len(held_out))


def coco_matches(results, given):
    """How many detections COCO's own code matches at IoU 0.5, objects of every size together."""
    judge = coco.judge(results, given)
    images = [e for e in judge.evalImgs if e and e["aRng"] == judge.params.areaRng[0]]
    return sum(int((image["dtMatches"][0] > 0).sum()) for image in images)


# ---------------------------------------------------------------- the training script


def same_bits(a, b):
    return all(torch.equal(tensor, b[name]) for name, tensor in a.state_dict().items())


def test_interrupted_training_ends_with_the_same_bits(monkeypatch, tmp_path):
    monkeypatch.setattr(make, "SAVE_EVERY", 2)
    whole, _ = make.train(3, tmp_path / "whole.part", steps=4, images=1)
    torch.rand(3)
    calls = []

    def interrupted(count, seed):
        calls.append(seed)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return scenes(count, seed)

    part = tmp_path / "training.part"
    monkeypatch.setattr(make, "scenes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make.train(3, part, steps=4, images=1)
    again, _ = make.train(3, part, steps=4, images=1)
    assert calls == [4_000_000 + step for step in (0, 1, 2, 3, 2, 3)]
    assert same_bits(whole, again.state_dict())
    with pytest.raises(SystemExit, match="begun with .*'seed': 3.*go on with that, or delete it"):
        make.train(4, part, steps=4, images=1)
    other, _ = make.train(4, tmp_path / "other.part", steps=1, images=1)
    assert not same_bits(whole, other.state_dict())


def test_the_script_writes_detector_and_card_and_clears_up(tmp_path, capsys):
    make.main(["--steps", "1", "--held-out", "1", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"detector.pt", "README.md"}
    model = unpacked(torch.load(tmp_path / "detector.pt", weights_only=True))
    assert not model.training
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert re.search('sha256 "(.*)"', capsys.readouterr().out)[1] in card
    assert "1 steps of 8 images" in card and "1 held-out scenes" in card


def test_without_pycocotools_it_says_so_before_it_trains(monkeypatch, tmp_path):
    monkeypatch.setattr(coco, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install pycocotools"):
        make.main(["--out", str(tmp_path)])
