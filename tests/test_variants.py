"""Variants against the same network built in one piece, and what they keep."""

import pytest
import torch

from helpers.course.explorers import variants as module
from helpers.course.explorers.variants import BATCH, FROZEN, IDENTITY, KINDS, Variants
from helpers.inputs import photos
from helpers.networks import backbones
from helpers.norms import freeze, replace_norms
from helpers.stages import STAGES, stages

IMAGE = photos.load("coffee", 64)
ALL_FROZEN, EPS = (FROZEN,) * 5, 1e-4


@pytest.fixture(scope="module", params=["resnet50", "lite0"])
def model(request):
    return backbones.load(request.param)


def run(model):
    maps, image = {}, IMAGE
    with torch.inference_mode():
        for stage, part in stages(model).items():
            maps[stage] = image = part(image)
    return maps


def same(maps, others):
    return all(torch.equal(maps[s], others[s]) or maps[s].isnan().any() for s in STAGES)


def test_maps_are_those_of_the_network_in_one_piece_which_stays_as_it_was(model):
    variants = Variants(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mixed, other = (IDENTITY, BATCH, IDENTITY, BATCH, IDENTITY), model
    for stage, kind in zip(STAGES, mixed, strict=True):
        other = replace_norms(other, kind, stages=stage)
    assert same(variants.maps("coffee", IMAGE, mixed, EPS), run(other))
    for kind in KINDS:
        maps = variants.maps("coffee", IMAGE, (kind,) * 5, EPS)
        whole = freeze(model, eps=EPS) if kind == FROZEN else replace_norms(model, kind)
        assert list(maps) == list(STAGES) and same(maps, run(whole))
    assert same(variants.maps("coffee", IMAGE, ALL_FROZEN, 1e-2), run(freeze(model, eps=1e-2)))
    # What is kept is not altered.
    assert same(variants.maps("coffee", IMAGE, mixed, EPS), run(other))
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    weights = {id(p) for p in model.parameters()}
    assert {id(p) for p in variants.part("layer4", FROZEN, EPS).parameters()} <= weights


def test_only_the_stages_behind_a_change_are_computed(model):
    variants, runs = Variants(model), []
    for stage in STAGES:
        for kind in (FROZEN, IDENTITY):
            part = variants.part(stage, kind, EPS)
            part.register_forward_hook(lambda *_, stage=stage: runs.append(stage))
    variants.maps("a", IMAGE, ALL_FROZEN, EPS)
    assert runs == list(STAGES)
    variants.maps("a", IMAGE, (FROZEN,) * 3 + (IDENTITY, FROZEN), EPS)
    assert runs[5:] == ["layer3", "layer4"]
    variants.maps("a", IMAGE, ALL_FROZEN, EPS)
    assert len(runs) == 7
    variants.maps("b", IMAGE.flip(3), ALL_FROZEN, EPS)
    assert runs[7:] == list(STAGES)


def test_what_is_kept_is_bounded(model, monkeypatch):
    monkeypatch.setattr(module, "KEPT_MAPS", 10)
    variants = Variants(model)
    for number in range(4):
        variants.maps(number, IMAGE, ALL_FROZEN, EPS)
    assert len(variants._maps) == 10 and {key for key, *_ in variants._maps} == {2, 3}
