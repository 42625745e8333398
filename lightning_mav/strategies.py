"""FSDP2 as a strategy of the trainer: Lightning's, with checkpoints as safe as those of one process."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from lightning_mav.checkpoint.io import commit_folder, read_checkpoint, remove_checkpoint, write_meta
from lightning_mav.checkpoint.sharded import load_shards, write_shards
from lightning_mav.errors import CheckpointError, MavError

T = TypeVar("T")


class ShardedStrategy(ModelParallelStrategy):
    """Every device holds its share of weights, gradients, moments and averages (FSDP2, data parallel).

    A checkpoint of either kind can be resumed by any number of devices, with this strategy or any other.

    Args:
        save_distributed_checkpoint: A checkpoint is a folder to which every rank writes its share at the same time;
            otherwise one file, for which the first rank collects everything in its memory.
        timeout: Longest that ranks wait for each other; writing a checkpoint counts.
    """

    def __init__(self, save_distributed_checkpoint: bool = True, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(save_distributed_checkpoint=save_distributed_checkpoint, timeout=timeout)

    def setup_environment(self) -> None:
        """Take all devices for data parallelism."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return this rank's share of the moments, by name; or all on the first rank, as one process would have it."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        whole = not self._save_distributed_checkpoint
        options = StateDictOptions(full_state_dict=whole, cpu_offload=True)
        state: dict[str, Any] = get_optimizer_state_dict(self._module, optimizer, options=options)
        return renamed(state, range(len(_parameters(optimizer)))) if whole and self.is_global_zero else state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all; if one rank fails, all raise its error."""
        path = Path(self.broadcast(filepath))
        if self._save_distributed_checkpoint:
            self._save_shards(checkpoint, path)
        else:
            self._first_rank(lambda: self._save_file(checkpoint, path))

    def _save_file(self, checkpoint: dict[str, Any], path: Path) -> None:
        if path.is_dir():
            remove_checkpoint(path)
        self.checkpoint_io.save_checkpoint(checkpoint, path)

    def _save_shards(self, checkpoint: dict[str, Any], path: Path) -> None:
        rest = checkpoint | {"stage": self._stage}
        state = {"state_dict": rest.pop("state_dict")}
        state |= {f"optimizer_{i}": moments for i, moments in enumerate(rest.pop("optimizer_states", []))}
        self._first_rank(lambda: remove_checkpoint(path))  # one that does not count
        try:
            write_shards(state, path)
            self._first_rank(lambda: write_meta(rest, path))
            self._first_rank(lambda: commit_folder(path))
        except MavError:
            self._first_rank(lambda: remove_checkpoint(path))
            raise

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load weights and moments from a folder or a file, whoever wrote it, and return the rest."""
        path = Path(self.broadcast(checkpoint_path))
        reads = path.is_file() and self.is_global_zero  # the others have the values from the first rank, or from shards
        place = "cpu" if reads else "meta"
        checkpoint = self._together(lambda: read_checkpoint(path, self._stage, map_location=place))
        weights, moments = checkpoint.pop("state_dict"), checkpoint.pop("optimizer_states", [])
        self._together(lambda: self._spread(weights, moments, path) if path.is_file() else self._load_shards(path))
        return checkpoint

    def _load_shards(self, path: Path) -> None:
        state: dict[str, Any] = {"state_dict": get_model_state_dict(self._module)}
        for i, optimizer in enumerate(self.optimizers):
            state[f"optimizer_{i}"] = get_optimizer_state_dict(self._module, optimizer)
        load_shards(state, path)
        set_model_state_dict(self._module, state["state_dict"])
        for i, optimizer in enumerate(self.optimizers):
            set_optimizer_state_dict(self._module, optimizer, state[f"optimizer_{i}"])

    def _spread(self, weights: dict[str, Any], moments: list[dict[str, Any]], path: Path) -> None:
        """Give every rank its share of what the first one has read."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        partly = replace(options, strict=False)  # a weight that no sample has reached has no moments
        weights, moments = tree_map_only(Tensor, Tensor.contiguous, (weights, moments))  # it broadcasts plain memory
        try:
            set_model_state_dict(self._module, weights, options=options)
            for optimizer, state in zip(self.optimizers, moments, strict=True):
                named = renamed(state, parameter_names(self._module, optimizer))
                set_optimizer_state_dict(self._module, optimizer, named, options=partly)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: does not fit this {self._stage} ({error})") from error

    def _first_rank(self, action: Callable[[], object]) -> None:
        self._together(lambda: action() if self.is_global_zero else None)

    def _together(self, action: Callable[[], T]) -> T:
        """Run ``action`` on every rank; if it fails on one, all raise that error instead of waiting for each other."""
        result: T | None = None
        error: MavError | None = None
        try:
            result = action()
        except MavError as found:
            error = found
        errors: list[MavError | None] = [None] * self.world_size
        dist.all_gather_object(errors, error)
        if failed := next(filter(None, errors), None):
            raise failed
        return result  # type: ignore[return-value]

    @property
    def _module(self) -> nn.Module:
        assert self.model is not None
        return self.model

    @property
    def _stage(self) -> str:
        return type(self.lightning_module).__name__


def renamed(state: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """Return an optimiser's state in which ``names`` stand, in order, for what its groups call their parameters."""
    groups = state["param_groups"]
    new = dict(zip(chain.from_iterable(group["params"] for group in groups), names, strict=True))
    return {
        "state": {new[name]: moments for name, moments in state["state"].items()},
        "param_groups": [{**group, "params": [new[name] for name in group["params"]]} for group in groups],
    }


def parameter_names(module: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names in ``module`` of an optimiser's parameters, in its order."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [names[parameter] for parameter in _parameters(optimizer)]


def _parameters(optimizer: Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
