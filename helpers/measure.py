"""Memory of a callable."""

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_for_backward(function: Callable, *args) -> tuple[object, int]:
    """Return the result of `function(*args)`, and the bytes that autograd keeps for backward.

    Each storage counts once and whole, also those of parameters and inputs; 0 if none is recorded.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor and its graph would keep each other alive

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(*args), sum(storages.values())
