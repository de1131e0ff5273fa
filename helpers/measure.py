"""Time and memory of a callable."""

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_for_backward(function: Callable, *args) -> tuple[object, int]:
    """What `function(*args)` returns, and the bytes that autograd keeps for its backward pass.

    Each storage counts once and whole, parameters and inputs included; 0 where nothing is recorded.
    The same on every processor, unlike the memory in use.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold its graph, and the graph it

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        return function(*args), sum(storages.values())
