"""The audit: every normalization layer of a model is tried, and judged by what it does."""

import math
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from helpers.audit import recipes
from helpers.audit.census import WIRINGS, build, pretrains_the_backbone
from helpers.audit.layers import USUAL_EPS, Norm, gather, held_in_containers
from helpers.audit.report import Audit, Finding
from helpers.probe import START, channels, has_statistics, norm_layers, told_eps
from helpers.text import short

TEXTS = tomllib.loads(Path(__file__).with_name("findings.toml").read_text(encoding="utf-8"))
EXAMPLES = (1e-2, 1e-3, 1e-4)  # variances to show a scale error at where the model holds none
POINTWISE = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)


def audit(
    model: nn.Module,
    recipe: nn.Module | str | None = None,
    batch_size: int | None = None,
    example: Any = None,
) -> Audit:
    """Audit the normalization layers of `model`: what each does, and a finding for every trap.

    Every layer is tried alone, on a copy, with small inputs (helpers.probe); where that cannot be,
    as on the meta device, its class and attributes tell. The model is left as it was.

    `example`: what the model takes, a tensor, a list of images, or a tuple or mapping of arguments.
    A copy of the model then runs on it in the model's own mode, and what ran is judged too.
    `recipe`: what the weights were trained as: a model; the name of a torchvision builder, which
    stands for that model with its newest weights; or None, for what recipes.look_up finds.
    `batch_size`: images per forward pass and process in training, if known.

    findings.toml has the codes of the findings, and what is said of each. TypeError for what is no
    model, and for a traced or scripted one; ValueError for an unknown name, a recipe that does not
    match, and a batch size below 1.
    """
    model = unwrapped(model)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, or None if not known, not {batch_size}.")
    norms, said = gather(model, example)
    known, trained, note = _recipe(model, recipe, norms)
    pairs = _pairs(norms, norm_layers(trained)) if trained else []
    if recipe is not None and norms and not pairs:
        raise ValueError(
            f"The recipe {known} has other normalization layers than {type(model).__name__}: "
            "give one of the same architecture."
        )
    alike = [(n, x) for n, x in pairs if has_statistics(x) == has_statistics(n.layer)]
    told = [(n, told_eps(x)) for n, x in alike if None not in (n.does.eps, told_eps(x))]
    if alike and not told:
        note = f"eps is not compared with {known}: no pair of layers tells or shows both."
    others = [n.name for n, x in pairs if recipe is not None and (n, x) not in alike]
    findings = [
        *_eps_differs(told, known),
        *_finding("kind-differs", others, recipe=known),
        *_not_finite(norms),
        *_eps_zero(norms),
        *_while_fixed(norms),
        *_batch_of_one(model, norms, batch_size),
        *_not_synced(norms),
        *_at_start(norms),
        *_promotes(model, norms),
        *_finding("held-twice", dict.fromkeys(held_in_containers(model))),
        *_finding("never-reached", (norm.name for norm in norms if norm.inputs == [])),
    ]
    untried = Counter(norm.does.untried for norm in norms if norm.does.untried)
    what = "What {} layers do is told by their attributes, not tried: {}."
    untried = [what.format(number, why) for why, number in untried.items()]
    return Audit(
        type(model).__name__,
        tuple(norm.row() for norm in norms),
        tuple(findings),
        known if told else None,
        tuple(filter(None, [said, *untried, note, _eval_only(model, norms)])),
    )


def audit_builder(name: str, weights: str = "pretrained", batch_size: int | None = None) -> Audit:
    """Audit torchvision's builder `name`, wired as census.build does for `weights`.

    Where only its backbone is pretrained, eps is compared with what that was trained with; a whole
    model has nothing to compare with but itself. ValueError for an unknown name or weights.
    """
    model = build(name, weights)
    body = recipes.nearest(model)[0] if pretrains_the_backbone(name, weights) else None
    audited = audit(model, body, batch_size)
    return replace(audited, model=f"{name}, {WIRINGS.get(weights, weights)}")


def unwrapped(model: nn.Module) -> nn.Module:
    """Take a model out of torch.compile's, the data-parallel and the weight-averaging wrappers.

    TypeError for what is no model, and for a traced or scripted one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
    while (compiled := "_orig_mod" in model._modules) or isinstance(model, WRAPPERS):
        model = model._orig_mod if compiled else model.module
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("A traced or scripted model hides its layers: give the one it was made of.")
    return model


def _recipe(model: nn.Module, recipe: Any, norms: list[Norm]) -> tuple[str, nn.Module | None, str]:
    if isinstance(recipe, nn.Module):
        return type(recipe).__name__, unwrapped(recipe), ""
    if isinstance(recipe, str):
        return recipe, build(recipe, "DEFAULT"), ""
    if recipe is not None:
        raise TypeError(f"The recipe must be a model or a name, not {type(recipe).__name__}.")
    trained = not all(norm.is_at_start("running_mean", "running_var") for norm in norms)
    return recipes.look_up(model) if trained else ("", None, "")


def _pairs(norms: list[Norm], there: dict[str, nn.Module]) -> list[tuple[Norm, nn.Module]]:
    """Match by name, or else by channels and order, if more than half of the recipe's are there."""
    named = [(norm, there[norm.name]) for norm in norms if norm.name in there]
    if 2 * len(named) > len(there) and all(channels(n.layer) == channels(x) for n, x in named):
        return named
    trained = [*there.values()]
    runs = recipes.blocks((channels(norm.layer) for norm in norms), map(channels, trained))
    if 2 * max(run.size for run in runs) <= len(there):
        return []
    return [(norms[r.a + i], trained[r.b + i]) for r in runs for i in range(r.size)]


def _finding(key: str, names: Iterable[str], code: str = "", **facts: Any) -> Iterator[Finding]:
    if names := tuple(names):
        meaning, advice = (TEXTS[key][part].format(**facts) for part in ("meaning", "advice"))
        yield Finding(code or key, names, meaning, advice)


def _mend(norms: list[Norm], eps: str) -> str:
    settable = all(norm.does.eps_settable for norm in norms)
    classes = ", ".join(sorted({type(norm.layer).__name__ for norm in norms}))
    return TEXTS["eps-differs"]["set" if settable else "swap"].format(eps=eps, classes=classes)


def _eps_differs(pairs: list[tuple[Norm, float]], recipe: str) -> Iterator[Finding]:
    groups = defaultdict(list)
    for norm, trained in pairs:
        if not math.isclose(norm.does.eps, trained, rel_tol=1e-4):
            groups[norm.does.eps, trained, norm.does.eps_settable].append(norm)
    for (own, trained, _), norms in groups.items():
        at = {f"at v = {short(v)}": v for v in EXAMPLES}
        if held := [norm.variance for norm in norms if norm.variance is not None]:
            variances = torch.cat(held)
            known = {"smallest": variances.min().item(), "median": variances.median().item()}
            at = {f"at their {name} v, {short(v)}": v for name, v in known.items()}
        yield from _finding(
            "eps-differs",
            (norm.name for norm in norms),
            own=short(own),
            trained=short(trained),
            recipe=recipe,
            wanted=f"(v + {short(trained)})" if trained else "v",
            given=f"(v + {short(own)})" if own else "v",
            errors=", ".join(f"{_scale_error(v, trained, own)} {where}" for where, v in at.items()),
            mend=_mend(norms, short(trained)),
        )


def _scale_error(variance: float, trained: float, own: float) -> str:
    if variance + own <= 0:
        return "×∞"
    factor = math.sqrt(max(0.0, variance + trained) / (variance + own))
    percent = 100 * (factor - 1)
    if not abs(percent) < 10:
        return f"×{short(factor)}"
    size = f"{'+' if percent > 0 else '−'}{short(abs(percent), 2)} %"
    return size if abs(percent) >= 0.01 else "less than 0.01 %"


def _not_finite(norms: list[Norm]) -> Iterator[Finding]:
    def fails(norm: Norm) -> bool:
        held = [values for name in START if (values := norm.values(name)) is not None]
        if None not in (norm.does.eps, norm.variance):
            held.append((norm.variance + norm.does.eps).rsqrt())
        return not all(values.isfinite().all() for values in held)

    yield from _finding("not-finite", (norm.name for norm in norms if fails(norm)))


def _eps_zero(norms: list[Norm]) -> Iterator[Finding]:
    held = [norm for norm in norms if norm.does.eps == 0 and norm.variance is not None]
    held = [n for n in held if ((n.variance >= 0) & (n.variance < USUAL_EPS)).any()]
    if held:
        variances = torch.cat([norm.variance for norm in held])
        lowest = variances[variances >= 0].min().item()
        yield from _finding(
            "eps-zero",
            (norm.name for norm in held),
            small=int((variances < USUAL_EPS).sum()),
            channels=len(variances),
            usual=short(USUAL_EPS),
            lowest=short(lowest),
            gain=short(lowest**-0.5) if lowest else "infinite (NaN where the input is the mean)",
            mend=_mend(held, "what the weights were trained with"),
        )


def _while_fixed(norms: list[Norm]) -> Iterator[Finding]:
    fixed = [(norm.name, norm.does) for norm in norms if norm.is_fixed]
    yield from _finding("statistics-move", (n for n, does in fixed if does.now.statistics_move))
    mixing = [(n, d) for n, d in fixed if d.now.mixes_images and not d.now.statistics_move]
    for key, always in (("batch-statistics", False), ("no-statistics", True)):
        names = (n for n, does in mixing if bool(does.in_eval.mixes_images) == always)
        yield from _finding(key, names, code="batch-statistics")


def _eval_only(model: nn.Module, norms: list[Norm]) -> str:
    held = [norm.name for norm in norms if norm.is_fixed and norm.does.is_held_by_eval]
    if not held or not (model.training or any(p.requires_grad for p in model.parameters())):
        return ""
    return (
        f"{len(held)} layers with frozen parameters, such as {held[0]}, are held by eval mode "
        "only: the next model.train() ends that. Call eval() on them after it, every time."
    )


def _batch_of_one(model: nn.Module, norms: list[Norm], batch_size: int | None) -> Iterator[Finding]:
    mixing = [norm for norm in norms if norm.does.now.mixes_images]
    behind = _get_one_value(model, {norm.layer for norm in mixing})

    def is_refused(norm: Norm) -> bool:
        if norm.inputs:
            return any(shape.numel() == shape[1] for shape in norm.inputs if len(shape) > 1)
        told = batch_size == 1 and isinstance(norm.fed_by, nn.Linear)
        return batch_size in (None, 1) and (told or norm.layer in behind)

    refusing = [norm for norm in mixing if norm.does.now.refuses_one_value is not False]
    refused = [norm.name for norm in refusing if is_refused(norm)]
    yield from _finding("batch-of-one", refused)
    if batch_size == 1:
        others = [norm for norm in mixing if not isinstance(norm.layer, nn.SyncBatchNorm)]
        alone = (norm.name for norm in others if norm.name not in refused)
        yield from _finding("own-statistics", alone, code="batch-of-one")


def _get_one_value(model: nn.Module, mixing: set[nn.Module]) -> set[nn.Module]:
    """Layers that see one value per channel and image, as far as nn.Sequential tells."""
    found = set()
    for sequential in (m for m in model.modules() if isinstance(m, nn.Sequential)):
        one = False
        for leaf in _leaves(sequential):
            if (size := getattr(leaf, "output_size", None)) is not None:
                one = {*(size if isinstance(size, tuple) else (size,))} == {1}
            elif leaf in mixing:
                found |= {leaf} if one else set()
            elif isinstance(leaf, nn.Linear):
                one = True  # before a BatchNorm1d, its channels are the linear layer's outputs
            elif isinstance(leaf, _ConvNd):
                one &= not any(leaf.padding)
            elif type(leaf).__module__ != "torch.nn.modules.activation":
                one &= isinstance(leaf, POINTWISE)
    return found


def _leaves(sequential: nn.Sequential) -> Iterator[nn.Module]:
    for child in sequential:
        yield from _leaves(child) if isinstance(child, nn.Sequential) else (child,)


def _not_synced(norms: list[Norm]) -> Iterator[Finding]:
    others = [norm for norm in norms if not isinstance(norm.layer, nn.SyncBatchNorm)]
    if len(others) < len(norms):
        others = [norm for norm in others if has_statistics(norm.layer)]
        by_batch = (n.name for n in others if n.does.is_frozen or n.does.in_train.mixes_images)
        yield from _finding("not-synced", by_batch)


def _at_start(norms: list[Norm]) -> Iterator[Finding]:
    start = [norm for norm in norms if norm.variance is not None]
    start = [norm for norm in start if norm.is_at_start("running_mean", "running_var")]
    idle = (norm.name for norm in start if norm.does.is_frozen and norm.is_at_start(*START))
    yield from _finding("never-calibrated", idle)

    def is_trained(norm: Norm) -> bool:  # zeros everywhere are how some layers begin
        held = (norm.values(name) for name in ("weight", "bias"))
        return any(values is not None and (values != values[0]).any() for values in held)

    yield from _finding("statistics-missing", (n.name for n in start if is_trained(n)))


def _promotes(model: nn.Module, norms: list[Norm]) -> Iterator[Finding]:
    everywhere = {module.weight.dtype for module in model.modules() if isinstance(module, _ConvNd)}
    groups = defaultdict(list)
    for norm in norms:
        given = everywhere if norm.fed_by is None else {norm.fed_by.weight.dtype}
        if len(given) == 1 and (out := norm.does.dtypes.get(*given)) not in (None, *given):
            groups[*given, out].append(norm.name)
    for dtypes, names in groups.items():
        given, out = (str(dtype).removeprefix("torch.") for dtype in dtypes)
        yield from _finding("promotes", names, given=given, out=out)
