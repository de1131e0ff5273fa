"""Variants against the same network built in one piece, and what they keep."""

import pytest
import torch

from helpers.course.explorers.variants import Variants
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import KINDS, replace_norms
from helpers.stages import STAGES, stages


@pytest.fixture(scope="module", params=["resnet50", "lite0"])
def model(request):
    return backbones.load(request.param, "auto" if request.param == "lite0" else "stand-in")


@pytest.fixture
def variants(model):
    return Variants(model)


IMAGE = photos.load("coffee", 96)


def run(model, image):
    maps = {}
    with torch.inference_mode():
        for stage, part in stages(model).items():
            maps[stage] = image = part(image)
    return maps


def same(maps, others):
    return all(torch.equal(maps[s], others[s]) or maps[s].isnan().any() for s in STAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_those_of_the_network_in_one_piece(model, variants, kind):
    maps = variants.maps("coffee", IMAGE, (kind,) * 5)
    assert list(maps) == list(STAGES)
    assert same(maps, run(replace_norms(model, kind), IMAGE))


def test_mixed_kinds(model, variants):
    kinds = ("frozen", "identity", "frozen", "batch statistics", "frozen, eps 1e-5")
    other = model
    for stage, kind in zip(STAGES, kinds, strict=True):
        other = replace_norms(other, kind, stages=stage)
    assert same(variants.maps("coffee", IMAGE, kinds), run(other, IMAGE))


def count_runs(variants):
    runs = []
    for stage in STAGES:
        for kind in KINDS:
            part = variants.part(stage, kind)
            part.register_forward_hook(lambda *_, stage=stage: runs.append(stage))
    return runs


def test_only_the_stages_behind_a_change_are_computed(variants):
    runs = count_runs(variants)
    variants.maps("a", IMAGE, ("frozen",) * 5)
    assert runs == list(STAGES)
    variants.maps("a", IMAGE, ("frozen",) * 3 + ("identity", "frozen"))
    assert runs[5:] == ["layer3", "layer4"]
    variants.maps("a", IMAGE, ("frozen",) * 5)
    assert len(runs) == 7
    variants.maps("b", IMAGE.flip(3), ("frozen",) * 5)
    assert runs[7:] == list(STAGES)


def test_what_is_kept_stays_as_it_was(variants):
    kinds = ("frozen",) * 5
    before = {stage: tensor.clone() for stage, tensor in variants.maps("a", IMAGE, kinds).items()}
    for kind in KINDS:
        variants.maps("a", IMAGE, kinds[:2] + (kind,) * 3)
    assert same(before, variants.maps("a", IMAGE, kinds))


def test_what_is_kept_is_bounded(model):
    kinds, one_run = ("frozen",) * 5, sum(t.nbytes for t in run(model, IMAGE).values())
    variants = Variants(model, kept_bytes=2 * one_run)
    for number in range(6):
        variants.maps(number, IMAGE, kinds)
        assert sum(tensor.nbytes for tensor in variants._maps.values()) <= 2 * one_run
    assert {key for key, _ in variants._maps} == {4, 5}
    tight = Variants(model, kept_bytes=0)
    assert same(tight.maps("a", IMAGE, kinds), variants.maps("a", IMAGE, kinds))


def test_the_weights_are_shared_and_the_model_stays_as_it_was(model, variants):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for kind in KINDS:
        variants.maps("a", IMAGE, (kind,) * 5)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    weights = {id(p) for p in model.parameters()}
    assert {id(p) for p in variants.part("layer4", "frozen").parameters()} <= weights


def test_bad_choices_are_one_sentence(variants):
    with pytest.raises(ValueError, match="One kind for each of stem, .*, not 2"):
        variants.maps("a", IMAGE, ("frozen",) * 2)
    with pytest.raises(ValueError, match="No kind 'cold'"):
        variants.maps("a", IMAGE, ("cold",) * 5)
