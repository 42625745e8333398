"""A model of Karlo's shape as the folders of diffusers' UnCLIP pipeline; the inverse of ``convert``.

Sizes are free, but what diffusers' classes compute is not: whatever else differs from Karlo's configuration is refused.
Temporal layers and the frame rate, which those classes lack, are left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_mav.checkpoint import families
from lightning_mav.checkpoint.config import to_plain
from lightning_mav.checkpoint.convert import STATISTICS
from lightning_mav.checkpoint.diffusers_names import prior_names, text_projection_names, to_diffusers, unet_names
from lightning_mav.errors import CheckpointError
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.prior_transformer import NUM_EXTRA_TOKENS
from lightning_mav.networks.pseudo3d import is_temporal
from lightning_mav.networks.unet import UNetConfig

State = dict[str, Tensor]
KARLO = {family.model: family.config for family in reversed(families.KARLO)}  # the first of a model counts
SIZES = {
    "channels", "channel_mult", "num_res_blocks", "attention_downsamples", "head_channels", "norm_groups",
    "image_embedding_dim", "num_image_tokens", "text_dim", "context_dim", "embedding_dim", "states_dim", "width",
    "num_layers", "num_heads", "num_text_tokens",
}  # fmt: skip
NOT_THERE = {
    "sampling", "temporal", "fps", "dropout", "checkpointing", "condition_dropout", "density", "vlb_weight",
    "weighting", "num_candidates", "clip_x0", "frames_per_chunk", "image_size", "scale",
}  # fmt: skip


@dataclass(frozen=True)
class Component:
    """One folder of diffusers' layout.

    Attributes:
        folder: Its name in the pipeline.
        config: For ``config.json``.
        state: For ``diffusion_pytorch_model.safetensors``.
    """

    folder: str
    config: dict[str, Any]
    state: State


def components(model: nn.Module, path: str | Path) -> list[Component]:
    """Return what diffusers calls the parts of ``model``.

    Args:
        model: A decoder with text, a prior or a space-time super-resolution, of Karlo's shape.
        path: Where it came from, for messages.

    Raises:
        CheckpointError: Another model, or not of that shape.
    """
    if reason := next(_differences(model), None):
        raise CheckpointError(f"{path}: diffusers' UnCLIP lacks such a model: {reason}; take --layout native")
    state = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    state = {key: value for key, value in state.items() if not is_temporal(key)}
    found = _WRITERS[model.name](model.config, state)  # type: ignore[index]
    numbers = [sum(value.numel() for value in one.values()) for one in (state, *(part.state for part in found))]
    assert numbers[0] == sum(numbers[1:]), "a weight has no name in diffusers"
    return found


def _differences(model: nn.Module) -> Iterator[str]:
    """Yield what keeps a model from being one of diffusers' UnCLIP."""
    config: Any = model.config
    if model.name not in KARLO:
        yield f"the model is {model.name}, not {' or '.join(KARLO)}"
        return
    yield from _other_values(to_plain(config), to_plain(KARLO[model.name]))  # type: ignore[index]
    if isinstance(config, DecoderConfig) and config.network.text_dim != config.network.image_embedding_dim:
        yield "network.text_dim is not network.image_embedding_dim"
    if isinstance(config, PriorConfig) and config.network.states_dim != config.network.embedding_dim:
        yield "network.states_dim is not network.embedding_dim"
    if not isinstance(config, PriorConfig) and config.network.channel_mult[0] != 1:
        yield "network.channel_mult does not begin with 1"


def _other_values(given: dict[str, Any], karlo: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, wanted in karlo.items():
        if key in NOT_THERE:
            continue
        if isinstance(wanted, dict):
            yield from _other_values(given[key], wanted, f"{prefix}{key}.")
        elif given[key] != wanted and not (key in SIZES and given[key] and wanted):
            yield f"{prefix}{key} is {given[key]}, Karlo's is {wanted}"


def _decoder(config: DecoderConfig, state: State) -> list[Component]:
    network = config.network
    levels = range(len(network.channel_mult))
    attends = [2**level in network.attention_downsamples for level in levels]
    unet = _unet_config(network, attends, 3, 6, config.image_size) | {
        "_class_name": "UNet2DConditionModel",
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "attention_head_dim": network.head_channels,
        "cross_attention_dim": network.context_dim,
        "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
    }
    text_projection = {
        "_class_name": "UnCLIPTextProjModel",
        "clip_embeddings_dim": network.image_embedding_dim,
        "clip_extra_context_tokens": network.num_image_tokens,
        "cross_attention_dim": network.context_dim,
        "time_embed_dim": network.embedding_dim,
    }
    return [
        Component("decoder", unet, to_diffusers(state, unet_names(network))),
        Component("text_proj", text_projection, to_diffusers(state, text_projection_names())),
    ]


def _super_resolution(config: SuperResolutionConfig, state: State) -> list[Component]:
    network, size = config.network, KARLO["decoder"].image_size * config.scale
    unet = _unet_config(network, [False] * len(network.channel_mult), 6, 3, size) | {
        "_class_name": "UNet2DModel",
        "add_attention": False,
    }
    return [Component("super_res_first", unet, to_diffusers(state, unet_names(network)))]


def _prior(config: PriorConfig, state: State) -> list[Component]:
    network = config.network
    transformer = {
        "_class_name": "PriorTransformer",
        "num_attention_heads": network.num_heads,
        "attention_head_dim": network.width // network.num_heads,
        "num_layers": network.num_layers,
        "embedding_dim": network.embedding_dim,
        "num_embeddings": network.num_text_tokens,
        "additional_embeddings": NUM_EXTRA_TOKENS,
    }
    statistics = {theirs: state[ours][None] for theirs, ours in zip(("clip_mean", "clip_std"), STATISTICS, strict=True)}
    return [Component("prior", transformer, to_diffusers(state, prior_names(network)) | statistics)]


def _unet_config(network: UNetConfig, attends: list[bool], inputs: int, outputs: int, size: int) -> dict[str, Any]:
    """Return what both kinds of U-Net are told; ``attends`` says which levels have attention."""
    return {
        "sample_size": size,
        "in_channels": inputs,
        "out_channels": outputs,
        "block_out_channels": [int(network.channels * mult) for mult in network.channel_mult],
        "layers_per_block": network.num_res_blocks,
        "norm_num_groups": network.norm_groups,
        "down_block_types": ["SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends],
        "up_block_types": ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in attends[::-1]],
    }


_WRITERS: dict[str, Callable[[Any, State], list[Component]]] = {
    "decoder": _decoder,
    "prior": _prior,
    "sr_spacetime": _super_resolution,
}
