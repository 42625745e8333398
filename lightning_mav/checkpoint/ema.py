"""Exponential moving average of a module's trainable parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Weights = Literal["averaged", "raw"]
"""Which of a stage's weights: the moving average, or those of the last optimiser step."""


class Ema(nn.Module):
    """Frozen copies of the trainable parameters of a module, which follow them slowly.

    The copies are parameters of this module, so that they are saved and moved with the stage that holds it; those of a
    sharded module are sharded as it is.

    Args:
        module: Its parameters with ``requires_grad`` are copied.
        decay: Limit of the decay, which grows with the number n of updates as min(decay, (1 + n) / (10 + n)).
    """

    num_updates: Tensor

    def __init__(self, module: nn.Module, decay: float = 0.9999) -> None:
        super().__init__()
        self.decay = decay
        self.names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        trained = dict(module.named_parameters())
        self.averages = nn.ParameterDict(
            {_key(name): nn.Parameter(trained[name].detach().clone(), requires_grad=False) for name in self.names}
        )
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages one step towards the parameters of ``module``; call after every optimiser step."""
        n = int(self.num_updates)
        decay = min(self.decay, (1 + n) / (10 + n))
        averages, trained = self._pairs(module)
        torch._foreach_lerp_([own_share(one) for one in averages], [own_share(one) for one in trained], 1 - decay)
        self.num_updates += 1

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let ``module`` compute with the averaged weights inside the ``with`` block."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the full state dict of ``module`` with the averages in the place of the trained parameters."""
        averages = {name: self.averages[_key(name)].detach() for name in self.names}
        return {**module.state_dict(), **averages}

    def _pairs(self, module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        trained = dict(module.named_parameters())
        return [self.averages[_key(name)] for name in self.names], [trained[name] for name in self.names]

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        for average, parameter in zip(*self._pairs(module), strict=True):
            if own_share(parameter) is parameter:
                average.data, parameter.data = parameter.data, average.data
            else:  # FSDP2 gathers from the storage that it made
                trained = own_share(parameter).clone()
                own_share(parameter).copy_(own_share(average))
                own_share(average).copy_(trained)


def own_share(tensor: Tensor) -> Tensor:
    """Return this rank's share of a sharded tensor, and any other as it is."""
    share: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return share


def _key(name: str) -> str:
    """Return a parameter's name without dots, which a ParameterDict does not take."""
    return name.replace(".", "/")


def model_state(stage_state: dict[str, Tensor], weights: Weights = "averaged") -> dict[str, Tensor]:
    """Return the model's weights out of a stage's state dict, with the averages in the place of trained ones or not."""
    trained = _below("model.", stage_state)
    if weights == "raw":
        return trained
    averages = _below("ema.averages.", stage_state)
    return trained | {key.replace("/", "."): value for key, value in averages.items()}


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
