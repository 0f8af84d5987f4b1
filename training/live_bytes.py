"""How many bytes a computation holds at the most, found without holding them.

On torch's meta device tensors have sizes and no memory: networks run there as they are, in milliseconds, and
what they make is counted from its making until nobody has it any more. (It counts on real devices as well.)
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@torch.no_grad()
def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors made by `work` that live at one time, what it returns included.

    Attention is counted as the fused kernels that GPUs have for it. What kernels take for themselves while
    they compute is not known here."""
    with _Counted() as counted, _FusedAttention():
        work()
    return counted.peak


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What these tensors keep from being freed; memory that they share once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


class _Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, object] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        there = {storage._cdata for storage in _storages((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage._cdata not in there and storage._cdata not in self._known:
                self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def gone(_: object) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


class _FusedAttention(TorchFunctionMode):
    """Without a kernel of its own, attention on the meta device would make every score."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention and args[0].is_meta:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def _storages(made: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
