"""Where FSDP2 cuts a model: at the blocks of its network, of which one at a time is whole in memory."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from lightning_mav.errors import ConfigError
from lightning_mav.networks.prior_transformer import ResidualBlock
from lightning_mav.networks.unet import Block

UNITS = (Block, ResidualBlock)


def shard(model: nn.Module, mesh: DeviceMesh, precision: str) -> None:
    """Spread the parameters of ``model`` over the ranks of a mesh, in place.

    A block is gathered for its forward and its backward pass and let go after each; parameters outside of blocks, for
    those of the whole network. Those too are let go after the forward pass, so that none computes with what it was
    before the averages took its place.

    Args:
        model: Its weights are the same on every rank.
        mesh: One-dimensional.
        precision: The trainer's.

    Raises:
        ConfigError: A model that cannot be cut.
    """
    if any(parameter.ndim == 0 for parameter in model.parameters()):
        raise ConfigError(
            f"trainer.strategy: the {model.name} is too small to be cut, any device holds it; "
            "take --trainer configs/trainer/ddp.yaml"
        )
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP2 takes no channels-last kernels
    network: nn.Module = model.network  # type: ignore[assignment]
    blocks = [module for module in network.modules() if isinstance(module, UNITS)]
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True, mp_policy=gathered_as(precision))


def gathered_as(precision: str) -> MixedPrecisionPolicy:
    """Return how weights travel: under autocast to bfloat16 as that; gradients are always summed in float32."""
    if precision != "bf16-mixed":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)


def is_sharded(model: nn.Module) -> bool:
    """Tell whether ``shard`` has been here; the trainer asks for it anew with each of its functions."""
    return any(isinstance(module, FSDPModule) for module in model.modules())
