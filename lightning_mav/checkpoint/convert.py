"""Other projects' weights as models of this one. A family is data: how it is recognised, and the model it becomes.

Conversion is strict: every tensor of a source is used, every weight of the model is given, or nothing is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mav.checkpoint import diffusers_names
from lightning_mav.checkpoint.foreign import read_foreign
from lightning_mav.errors import CheckpointError
from lightning_mav.models import MODELS
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.decoder import DecoderConfig
from lightning_mav.models.prior import PriorConfig
from lightning_mav.models.super_resolution import SuperResolutionConfig
from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.unet import UNetConfig

State = dict[str, Tensor]
KARLO_LICENCE = "CreativeML Open RAIL-M"
STATISTICS = ("embedding_mean", "embedding_std")


@dataclass(frozen=True)
class Family:
    """Published weights that become one model.

    Attributes:
        name: For messages.
        folder: The model's folder in a pipeline.
        model: A key of ``MODELS``.
        config: Of that model.
        prefix: What all its names start with in the published file.
        mark: A name that only it has, after the prefix.
        licence: Of the weights.
    """

    name: str
    folder: str
    model: str
    config: Any
    prefix: str
    mark: str
    licence: str = KARLO_LICENCE


_DECODER = DecoderConfig(
    UNetConfig(text_dim=768), Objective(), Sampling("ddpm", 25, guidance_scale=8.0), condition_dropout=0.1
)
_PRIOR = PriorConfig(PriorTransformerConfig(), sampling=Sampling("ddpm", 25, guidance_scale=4.0))
_SR = SuperResolutionConfig(sampling=Sampling("ddpm", 7))
FAMILIES = (
    Family("Karlo decoder", "decoder", "decoder", _DECODER, "model.", "cf_param"),
    Family("Karlo prior", "prior", "prior", _PRIOR, "model.", "prd_emb"),
    Family("Karlo super-resolution", "sr_spacetime", "sr_spacetime", _SR, "model_first_steps.", "out.2.weight"),
    Family(
        "Karlo's last super-resolution step", "sr_last_step", "sr_spacetime", _SR, "model_last_step.", "out.2.weight"
    ),
)


@dataclass(frozen=True)
class Converted:
    """A model's weights under this project's names."""

    family: Family
    state: State


def convert_sources(sources: Sequence[str | Path], families: Sequence[Family] = FAMILIES) -> list[Converted]:
    """Read files and folders, recognise what they hold, and return the models; nothing is written.

    Raises:
        CheckpointError: Unreadable, of no known family, or not strictly what its family has.
    """
    return convert_states([(source, read_foreign(source)) for source in sources], families)


def convert_states(given: Sequence[tuple[str | Path, State]], families: Sequence[Family] = FAMILIES) -> list[Converted]:
    """Do the same for tensors that were read already, each table with the name of its source."""
    statistics = [state for _, state in given if set(state) == {"0", "1"}]
    networks = _merged([(source, _native(state, families)) for source, state in given if set(state) != {"0", "1"}])
    found: list[Converted] = []
    for source, state in networks:
        found += _converted(source, state, statistics[0] if statistics else None, families)
    if statistics and not any(one.family.model == "prior" for one in found):
        raise CheckpointError("the embeddings' statistics belong to a prior; convert them together with it")
    return found


def _native(state: State, families: Sequence[Family]) -> State:
    """Return a source under the names of its family's own files."""
    networks = {family.model: family.config.network for family in reversed(families)}  # the first of a model counts
    prefix = "model."
    if diffusers_names.is_prior(state):
        names = diffusers_names.prior_names(networks["prior"])
    elif diffusers_names.is_text_projection(state):
        names = diffusers_names.text_projection_names()
    elif diffusers_names.is_unet(state) and any("add_k_proj" in key for key in state):
        names = diffusers_names.unet_names(networks["decoder"])
    elif diffusers_names.is_unet(state):
        names, prefix = diffusers_names.unet_names(networks["sr_spacetime"]), "model_first_steps."
    else:
        return state
    return {prefix + key: value for key, value in diffusers_names.to_native(state, names).items()}


def _merged(networks: list[tuple[str | Path, State]]) -> list[tuple[str | Path, State]]:
    """Put diffusers' text projection to the U-Net that it belongs to."""
    projections = [state for _, state in networks if "model.cf_param" in state and "model.out.2.weight" not in state]
    rest = [(source, state) for source, state in networks if not any(state is one for one in projections)]
    for projection in projections:
        for i, (source, state) in enumerate(rest):
            if "model.out.2.weight" in state and "model.cf_param" not in state:
                rest[i] = (source, state | projection)
                break
        else:
            raise CheckpointError("a text projection belongs to a decoder; convert both together")
    return rest


def _converted(
    source: str | Path, state: State, statistics: State | None, families: Sequence[Family]
) -> list[Converted]:
    found, left = [], dict(state)
    for family in families:
        if family.prefix + family.mark in left:
            keys = [key for key in left if key.startswith(family.prefix)]
            part = {key.removeprefix(family.prefix): left.pop(key) for key in keys}
            found.append(Converted(family, _strict(source, family, part, statistics)))
    if left or not found:
        names = ", ".join(sorted(left)[:3])
        known = ", ".join(family.name for family in families)
        raise CheckpointError(f"{source}: {len(left)} weights of no known family ({names}); known: {known}")
    return found


def _strict(source: str | Path, family: Family, part: State, statistics: State | None) -> State:
    """Return the model's state dict; every weight is used and every one is given."""
    state = {f"network.{key}": value for key, value in part.items()}
    for number, name in enumerate(STATISTICS):
        own = state.pop(f"network.{('clip_mean', 'clip_std')[number]}", None)
        if family.model == "prior":
            value = own if own is not None else (statistics or {}).get(str(number))
            if value is not None:
                state[name] = value.flatten()
    wanted = {key: value.shape for key, value in empty_model(family).state_dict().items()}
    if family.model == "prior" and not set(STATISTICS) <= set(state):
        raise CheckpointError(f"{source}: the prior's statistics are missing; give ViT-L-14_stats.th too")
    problems = {
        "unknown": [key for key in state if key not in wanted],
        "missing": [key for key in wanted if key not in state],
        "of another size": [key for key in state if key in wanted and state[key].shape != wanted[key]],
    }
    for what, keys in problems.items():
        if keys:
            shown = ", ".join(key.removeprefix("network.") for key in keys[:3])
            raise CheckpointError(f"{source}: is no {family.name}: {len(keys)} weights are {what}: {shown}")
    return {key: state[key].float() for key in wanted}


def empty_model(family: Family) -> nn.Module:
    """Return the family's model without memory for its weights."""
    build: Callable[[Any], nn.Module] = MODELS[family.model]
    with torch.device("meta"):
        return build(family.config)


def filled_model(converted: Converted) -> nn.Module:
    """Return the model with its converted weights."""
    model = empty_model(converted.family)
    state: Mapping[str, Tensor] = converted.state
    model.load_state_dict(state, assign=True)
    return model
