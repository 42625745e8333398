"""Counting bytes and FLOPs of operations on fake tensors, which have shapes but no memory."""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_mav.networks import attention, layout, pseudo3d
from lightning_mav.networks.small_clip import CONTEXT

EFFICIENT_ATTENTION = 2  # the fused kernel that takes a bias
Bytes = Counter[str]
"""Bytes of live storages by what they hold: weights, gradients, optimizer, ema, activations."""


class Meter(TorchDispatchMode):
    """Sees every operation inside its ``with`` block, and keeps account of live storages and of FLOPs.

    Attributes:
        live: Bytes now.
        peak: Bytes at the moment when their sum was largest.
        flops: Floating-point operations of matrix products, convolutions and attention.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: Bytes = Counter()
        self.peak: Bytes = Counter()
        self.flops = 0
        self._storages: dict[int, tuple[Any, str, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return CONTEXT  # fake tensors have no values; the one that decides a shape is the length of texts
        if func is torch.ops.aten._fused_sdp_choice.default:
            return EFFICIENT_ATTENTION
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        self._see(tree_leaves(out))
        return out

    def assign(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Say what the storages of ``tensors`` hold; until then they are activations."""
        known = [tensor for tensor in tensors if tensor is not None]
        self._see(known)
        for key in {tensor.untyped_storage()._cdata for tensor in known}:
            storage, old, size = self._storages[key]
            self._storages[key] = storage, kind, size
            self.live[old] -= size
            self.live[kind] += size

    def restart(self) -> None:
        """Forget the peak and the FLOPs so far."""
        self.peak, self.flops = self.live.copy(), 0

    def _see(self, values: Iterable[Any]) -> None:
        for storage in (value.untyped_storage() for value in values if isinstance(value, Tensor)):
            key, size = storage._cdata, storage.nbytes()
            if key not in self._storages:
                self._storages[key] = weakref.ref(storage, partial(self._free, key)), "activations", size
                self.live["activations"] += size
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _free(self, key: int, _: Any) -> None:
        _, kind, size = self._storages.pop(key)
        self.live[kind] -= size


@contextmanager
def metered(device: str) -> Iterator[Meter]:
    """Run what is inside on fake tensors, by the kernels that ``device`` ("cpu" or "cuda") would take."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        meter = stack.enter_context(Meter())
        if device == "cuda":  # fake CUDA tensors have no backward pass without a GPU, so that fake CPU tensors stand in
            stack.enter_context(patch.object(attention, "_fused", lambda q: True))
            stack.enter_context(patch.object(pseudo3d, "group_norm", layout._strided_group_norm))
        yield meter
