"""One network under any choice of normalization, stage by stage; only what changed is computed."""

from collections import OrderedDict
from collections.abc import Hashable
from functools import lru_cache

import torch
from torch import Tensor, nn

from helpers.norms import norm_layers, replace_norms
from helpers.stages import stages

RUNNING, FROZEN, BATCH, IDENTITY = "running statistics", "frozen", "batch statistics", "identity"
KINDS = RUNNING, FROZEN, BATCH, IDENTITY
KEPT_MAPS = 30  # those of ResNet-50's five stages on a 224 px photo take 7 MiB together
KEPT_PARTS = 60  # stages; they share the weights


class Variants:
    """A network whose stages each take one of KINDS; a frozen one takes an eps.

    `normalize` turns an image in 0–1 into what the network takes; `eps` is the eps of its layers.
    All variants share the network's weights. The latest KEPT_MAPS feature maps are kept by the
    choices that led to them, so that a change recomputes only the stages behind it. No layer moves
    its statistics here: "batch statistics" stores none.
    """

    def __init__(self, model: nn.Module):
        self.original = stages(model)
        self.normalize = getattr(model, "normalize", lambda image: image)
        self.eps = next(iter(norm_layers(model).values())).eps
        self._part = lru_cache(KEPT_PARTS)(self._made)
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()

    def part(self, stage: str, kind: str, eps: float) -> nn.Module:
        """The stage with that kind of normalization; ValueError for an unknown kind."""
        return self._part(stage, kind, eps if kind == FROZEN else None)

    def _made(self, stage: str, kind: str, eps: float | None) -> nn.Module:
        part = replace_norms(self.original[stage], kind, share_weights=True)
        if eps is not None:
            for layer in norm_layers(part).values():
                layer.eps = eps
        return part.eval()

    @torch.inference_mode()
    def maps(
        self, key: Hashable, image: Tensor, kinds: tuple[str, ...], eps: float
    ) -> dict[str, Tensor]:
        """Stage → feature map (N,C,H,W), for as many stages as there are kinds.

        `key` tells images apart; `eps` is that of frozen layers.
        """
        maps, x = {}, image
        for number, (stage, kind) in enumerate(zip(self.original, kinds, strict=False), 1):
            choice = key, kinds[:number], eps if FROZEN in kinds[:number] else None
            if choice not in self._maps:
                self._maps[choice] = self.part(stage, kind, eps)(x)
            self._maps.move_to_end(choice)
            maps[stage] = x = self._maps[choice]
        while len(self._maps) > KEPT_MAPS:
            self._maps.popitem(last=False)
        return maps
