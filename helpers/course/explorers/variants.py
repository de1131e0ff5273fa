"""One network under any choice of normalization, stage by stage; only what changed is computed."""

from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from helpers.norms import norm_layers, replace_norms
from helpers.stages import stages

RUNNING, FROZEN, BATCH, IDENTITY = "running statistics", "frozen", "batch statistics", "identity"
KINDS = RUNNING, FROZEN, BATCH, IDENTITY
KEPT_BYTES = 40 * 2**20  # feature maps of ResNet-50 on one 224 px photo: 7 MiB for all stages
KEPT_PARTS = 60  # stages; they share the weights


class Variants:
    """A network whose stages each take one of KINDS; a frozen one takes an eps.

    `normalize` turns an image in 0–1 into what the network takes; `eps` is the eps of its layers.
    All variants share the network's weights. Feature maps are kept by the choices that led to them,
    the latest `kept_bytes` of them, so that a change recomputes only the stages behind it. No layer
    moves its statistics here: "batch statistics" stores none.
    """

    def __init__(self, model: nn.Module, kept_bytes: int = KEPT_BYTES):
        self.original = stages(model)
        self.normalize = getattr(model, "normalize", lambda image: image)
        self.eps = next(iter(norm_layers(model).values())).eps
        self._parts: OrderedDict[tuple, nn.Module] = OrderedDict()
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._kept_bytes = kept_bytes

    def part(self, stage: str, kind: str, eps: float) -> nn.Module:
        """The stage with that kind of normalization; ValueError for an unknown kind."""
        key = stage, kind, eps if kind == FROZEN else None
        if key not in self._parts:
            part = replace_norms(self.original[stage], kind, share_weights=True)
            if kind == FROZEN:
                for layer in norm_layers(part).values():
                    layer.eps = eps
            self._parts[key] = part.eval()
            if len(self._parts) > KEPT_PARTS:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]

    @torch.inference_mode()
    def maps(
        self, key: Hashable, image: Tensor, kinds: tuple[str, ...], eps: float
    ) -> dict[str, Tensor]:
        """Stage → feature map (N,C,H,W), for as many stages as there are kinds.

        `key` tells images apart; `eps` is that of frozen layers.
        """
        if len(kinds) > len(self.original):
            raise ValueError(f"One kind for each of {', '.join(self.original)}, not {len(kinds)}.")
        maps, x = {}, image
        for number, (stage, kind) in enumerate(zip(self.original, kinds, strict=False), 1):
            choice = key, kinds[:number], eps if FROZEN in kinds[:number] else None
            if choice not in self._maps:
                self._maps[choice] = self.part(stage, kind, eps)(x)
            self._maps.move_to_end(choice)
            maps[stage] = x = self._maps[choice]
        self._forget()
        return maps

    def _forget(self) -> None:
        size = sum(tensor.nbytes for tensor in self._maps.values())
        while size > self._kept_bytes and len(self._maps) > len(self.original):
            size -= self._maps.popitem(last=False)[1].nbytes
