"""The audit: every normalization layer of a model is tried, and judged by what it does."""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from helpers.audit import recipes
from helpers.audit.census import build, choices
from helpers.audit.layers import USUAL_EPS, Norm, gather, held_in_containers
from helpers.audit.report import NOTES, TEXTS, Audit, Finding
from helpers.probe import START, channels, has_statistics, left_behind, norm_layers, told_eps
from helpers.text import short

ORDER = {key: place for place, key in enumerate((*TEXTS, *NOTES))}
MOVING = ("running_mean", "running_var")
WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)


def audit(
    model: nn.Module,
    recipe: nn.Module | str | None = None,
    batch_size: int | None = None,
    example: Any = None,
) -> Audit:
    """Audit the normalization layers of `model`: what each does, and a finding for every trap.

    Every layer is tried alone, on a copy (helpers.probe); where that cannot be, as on the meta
    device, its class and attributes tell. The model stays as it was. findings.toml has the codes.

    `recipe`: what the weights were trained as: a model; the name of a torchvision builder, with its
    newest weights; or None, for what recipes.look_up finds. `batch_size`: images per forward pass
    and process in training, if known. `example`: what the model takes, a tensor, a list of images,
    a tuple or mapping of arguments; a copy runs on it, in the model's mode, and is judged, too.

    TypeError for what is no model, or traced or scripted; ValueError for an unknown name, a recipe
    that does not match, and a batch size below 1.
    """
    model = unwrapped(model)
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size > 0):
        raise ValueError(f"batch_size must be 1 or more, or None if not known, not {batch_size!r}.")
    norms, said = gather(model, batch_size, example)
    is_new = all(norm.is_at_start(*MOVING) for norm in norms.values())
    known, network, note = _recipe(model, recipe, is_new)
    own = {name: norm.row.channels for name, norm in norms.items()}
    pairs = _pairs(own, norm_layers(network)) if network else {}
    if recipe is not None and norms and not pairs:
        raise ValueError(NOTES["no-match"].format(known, type(model).__name__))
    traps: dict[tuple, list[str]] = defaultdict(list)
    for name, norm in norms.items():
        for trap in _traps(norm, pairs.get(name), batch_size):
            traps[trap].append(name)
    traps["held-twice",] = [*dict.fromkeys(held_in_containers(model))]
    if held := traps.get(("held-by-eval",)):
        with suppress(Exception):  # a model's own train() may keep some in eval mode, or fail
            (twin := copy.deepcopy(model, left_behind(model))).train()
            held[:] = [name for name in held if twin.get_submodule(name).training]
    is_compared = traps.pop(("compared",), None) is not None
    moot = {
        "kind-differs": recipe is None,
        "not-compared": is_compared,
        "not-synced": not any(isinstance(x.layer, nn.SyncBatchNorm) for x in norms.values()),
        "held-by-eval": not any(p.requires_grad for p in model.parameters()) and not model.training,
    }
    findings, notes = [], [said, note]
    for key, *told in sorted(traps, key=lambda trap: ORDER[trap[0]]):
        names = traps[key, *told]
        if not names or moot.get(key):
            continue
        if key in TEXTS:
            findings.append(_finding(key, told, names, norms, known))
        else:
            notes.append(NOTES[key].format(*told, number=len(names), first=names[0], recipe=known))
    rows, notes = (norm.row for norm in norms.values()), filter(None, notes)
    recipe = known if is_compared else None
    return Audit(type(model).__name__, tuple(rows), tuple(findings), recipe, tuple(notes))


def audit_builder(name: str, weights: str = "pretrained", batch_size: int | None = None) -> Audit:
    """Audit torchvision's builder `name`, wired as census.build does for `weights`.

    Where only its backbone is pretrained, eps is compared with what that was trained with.
    ValueError for an unknown name or weights.
    """
    model, is_part = build(name, weights), choices(name)[weights].get("weights_backbone")
    audited = audit(model, recipes.nearest(model)[0] if is_part else None, batch_size)
    return replace(audited, model=f"{name}, {weights}")


def unwrapped(model: nn.Module) -> nn.Module:
    """Take a model out of torch.compile's and WRAPPERS; TypeError for what is none, or scripted."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    while (compiled := "_orig_mod" in model._modules) or isinstance(model, WRAPPERS):
        model = model._orig_mod if compiled else model.module
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("A traced or scripted model hides its layers: give the one it was made of.")
    return model


def _recipe(model: nn.Module, recipe: Any, is_new: bool) -> tuple[str, nn.Module | None, str]:
    if isinstance(recipe, nn.Module):
        return type(recipe).__name__, unwrapped(recipe), ""
    if isinstance(recipe, str):
        return recipe, build(recipe, "DEFAULT"), ""
    if recipe is not None:
        raise TypeError(f"The recipe must be a model or a name, not {type(recipe).__name__}.")
    return ("", None, "") if is_new else recipes.look_up(model)


def _pairs(own: dict[str, int | None], there: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Match by name, or else by channels and order, if more than half of the recipe's are there."""
    named = {name: there[name] for name in own.keys() & there.keys()}
    if 2 * len(named) > len(there) and all(own[n] == channels(x) for n, x in named.items()):
        return named
    runs = recipes.blocks(own.values(), map(channels, there.values()))
    if 2 * max(run.size for run in runs) <= len(there):
        return {}
    names, layers = [*own], [*there.values()]
    return {names[r.a + i]: layers[r.b + i] for r in runs for i in range(r.size)}


def _traps(norm: Norm, pair: nn.Module | None, batch_size: int | None) -> Iterator[tuple]:
    """The traps that a layer, with its pair in the recipe, may be in: keys in findings.toml, with
    what tells groups of layers apart."""
    does, now, eps, held = norm.does, norm.does.now, norm.does.eps, norm.held
    if pair is not None and has_statistics(pair) != has_statistics(norm.layer):
        yield ("kind-differs",)
    elif pair is not None and None not in (eps, trained := told_eps(pair)):
        yield ("compared",)
        if not math.isclose(eps, trained, rel_tol=1e-4):
            yield "eps-differs", eps, trained, does.eps_settable
    elif pair is not None:
        yield ("not-compared",)

    v = held.get("running_var")
    scale = [] if None in (eps, v) else [(v + eps).rsqrt()]
    if not all(values.isfinite().all() for values in (*held.values(), *scale)):
        yield ("not-finite",)
    if eps == 0 and v is not None and ((v >= 0) & (v < USUAL_EPS)).any():
        yield ("eps-zero",)
    if v is not None and norm.is_at_start(*MOVING):
        if does.is_frozen and norm.is_at_start(*START):
            yield ("never-calibrated",)
        affine = [held[name] for name in ("weight", "bias") if name in held]
        if any((values != values[0]).any() for values in affine):  # some begin with zeros
            yield ("statistics-missing",)

    if norm.is_fixed and now.statistics_move:
        yield ("statistics-move",)
    elif norm.is_fixed and now.mixes_images:
        yield ("no-statistics" if does.in_eval.mixes_images else "batch-statistics",)
    elif norm.is_fixed and any(does.in_train[:2]):
        yield ("held-by-eval",)
    is_synced = isinstance(norm.layer, nn.SyncBatchNorm)
    mixes = now.mixes_images and not is_synced  # synchronized, one image has others beside it
    if mixes and now.refuses_one_value is not False and norm.gets_one_value:
        yield ("batch-of-one",)
    elif mixes and batch_size == 1:
        yield ("own-statistics",)
    if has_statistics(norm.layer) and not is_synced and (does.is_frozen or does.in_train[0]):
        yield ("not-synced",)

    if (out := does.dtypes.get(norm.given)) not in (None, norm.given):
        yield "promotes", *(str(dtype).removeprefix("torch.") for dtype in (norm.given, out))
    if not norm.is_reached:
        yield ("never-reached",)
    if does.untried:
        yield "untried", does.untried


def _finding(key: str, told: list, names: list, norms: dict[str, Norm], recipe: str) -> Finding:
    text, alike = TEXTS[key], [norms[name] for name in names if name in norms]
    held = [norm.held["running_var"] for norm in alike if "running_var" in norm.held]
    v, facts = torch.cat(held) if held else None, {"recipe": recipe}
    if key == "eps-differs":
        own, trained, _ = told
        at = [(variance, "") for variance in (1e-2, 1e-3, 1e-4)]  # if the model holds none
        if v is not None:
            at = [(v.min().item(), " (their smallest)"), (v.median().item(), " (their median)")]
        errors = [f"{_scale_error(x, trained, own)} at v = {short(x)}{said}" for x, said in at]
        wanted, given = (f"(v + {short(eps)})" if eps else "v" for eps in (trained, own))
        facts |= {"wanted": wanted, "given": given}
        facts |= {"own": short(own), "trained": short(trained), "errors": ", ".join(errors)}
    elif key == "eps-zero":
        lowest = v[v >= 0].min().item()
        gain = short(lowest**-0.5) if lowest else text["infinite"]
        facts |= {"small": int((v < USUAL_EPS).sum()), "channels": len(v), "gain": gain}
        facts |= {"usual": short(USUAL_EPS), "lowest": short(lowest), "trained": text["trained"]}
    if "trained" in facts:
        way = "set" if all(norm.does.eps_settable for norm in alike) else "swap"
        classes = ", ".join(sorted({norm.row.class_name for norm in alike}))
        facts["mend"] = TEXTS["eps-differs"][way].format(classes=classes, **facts)
    said = (text[part].format(*told, **facts) for part in ("meaning", "advice"))
    return Finding(text.get("code", key), tuple(names), *said)


def _scale_error(variance: float, trained: float, own: float) -> str:
    if variance + own <= 0:
        return "×∞"
    factor = math.sqrt(max(0.0, variance + trained) / (variance + own))
    percent = 100 * (factor - 1)
    if not abs(percent) < 10:
        return f"×{short(factor)}"
    size = f"{'+' if percent > 0 else '−'}{short(abs(percent), 2)} %"
    return size if abs(percent) >= 0.01 else "less than 0.01 %"
