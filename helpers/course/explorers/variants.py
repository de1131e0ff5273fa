"""One network under any choice of normalization, stage by stage; only what changed is computed."""

from collections import OrderedDict
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from helpers.norms import norm_layers, replace_norms
from helpers.stages import stages

KEPT_BYTES = 40 * 2**20  # feature maps of ResNet-50 on one 224 px photo: 7 MiB for all stages


class Variants:
    """A network whose stages each take one kind of normalization (helpers.norms.KINDS).

    `normalize` turns an image in 0–1 into what the network takes; `eps` is the eps of its layers.
    All variants share the network's weights. Feature maps are kept by the choices that led to them,
    the latest `kept_bytes` of them, so that a change recomputes only the stages behind it. No layer
    moves its statistics here: "batch statistics" stores none.
    """

    def __init__(self, model: nn.Module, kept_bytes: int = KEPT_BYTES):
        self.original = stages(model)
        self.normalize = getattr(model, "normalize", lambda image: image)
        self.eps = next(iter(norm_layers(model).values())).eps
        self._parts: dict[tuple[str, str], nn.Module] = {}
        self._maps: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._kept_bytes = kept_bytes

    def part(self, stage: str, kind: str) -> nn.Module:
        """The stage with that kind of normalization; ValueError for an unknown kind."""
        if (stage, kind) not in self._parts:
            part = replace_norms(self.original[stage], kind, share_weights=True)
            self._parts[stage, kind] = part.eval()
        return self._parts[stage, kind]

    @torch.inference_mode()
    def maps(self, key: Hashable, image: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
        """Stage → feature map (N,C,H,W), for one kind per stage; `key` tells images apart."""
        if len(kinds) != len(self.original):
            raise ValueError(f"One kind for each of {', '.join(self.original)}, not {len(kinds)}.")
        maps, x = {}, image
        for number, stage in enumerate(self.original, 1):
            choice = (key, kinds[:number])
            if choice not in self._maps:
                self._maps[choice] = self.part(stage, kinds[number - 1])(x)
            self._maps.move_to_end(choice)
            maps[stage] = x = self._maps[choice]
        self._forget()
        return maps

    def _forget(self) -> None:
        size = sum(tensor.nbytes for tensor in self._maps.values())
        while size > self._kept_bytes and len(self._maps) > len(self.original):
            size -= self._maps.popitem(last=False)[1].nbytes
