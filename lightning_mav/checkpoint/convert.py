"""Other projects' weights as models of this one; their families are data (families.py), told apart by their weights.

Conversion is strict: every tensor of a source is used, every weight of the model is given, or nothing is written.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mav.checkpoint import diffusers_names
from lightning_mav.checkpoint.families import FAMILIES, Family
from lightning_mav.checkpoint.foreign import read_foreign
from lightning_mav.errors import CheckpointError
from lightning_mav.models import MODELS

State = dict[str, Tensor]
STATISTICS = ("embedding_mean", "embedding_std")
OWN_TEXT = (
    "transformer",
    "token_embedding",
    "positional_embedding",
    "padding_embedding",
    "final_ln",
    "transformer_proj",
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
    if len(statistics) > 1:
        raise CheckpointError(f"{len(statistics)} sources are embeddings' statistics; give those of one prior")
    networks = _merged([(source, _native(state, families)) for source, state in given if set(state) != {"0", "1"}])
    found: list[Converted] = []
    for source, state in networks:
        found += _converted(source, state, statistics[0] if statistics else None, families)
    if statistics and not any(one.family.model == "prior" for one in found):
        raise CheckpointError("the embeddings' statistics belong to a prior; convert them together with it")
    _check_folders(found)
    return found


def _check_folders(found: Sequence[Converted]) -> None:
    """Refuse models of one folder, of which the last would stay."""
    for folder, num in Counter(one.family.folder for one in found).items():
        if num > 1:
            names = ", ".join(one.family.name for one in found if one.family.folder == folder)
            raise CheckpointError(f"{num} models would be '{folder}' ({names}); convert each into its own --out")


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
    """Return the models in one table: those of one prefix are one network."""
    found, left = [], dict(state)
    for prefix in sorted({family.prefix for family in families}, reverse=True):  # the empty one comes last
        keys = [key for key in left if key.startswith(prefix)]
        part = _text_apart({key.removeprefix(prefix): left[key] for key in keys})
        if family := _recognised(part, [one for one in families if one.prefix == prefix]):
            left = {key: value for key, value in left.items() if key not in set(keys)}
            found.append(Converted(family, _strict(source, family, part, statistics)))
    if left or not found:
        names = ", ".join(sorted(left)[:3])
        known = ", ".join(family.name for family in families)
        raise CheckpointError(f"{source}: {len(left)} weights of no known family ({names}); known: {known}")
    return found


def _text_apart(part: State) -> State:
    """Put a network's own text encoder, which GLIDE mixes with the U-Net, under a name of its own."""
    if "token_embedding.weight" not in part:
        return part
    return {f"text_encoder.{key}" if key.split(".")[0] in OWN_TEXT else key: value for key, value in part.items()}


def _recognised(part: State, families: Sequence[Family]) -> Family | None:
    """Return the family whose weights, by name and size, are most like ``part``; None if hardly half of them are."""
    given = {(key, tuple(value.shape)) for key, value in part.items()}
    alike = [len(given & _weights_of(family)) / len(given | _weights_of(family)) for family in families]
    best = max(alike, default=0)
    return families[alike.index(best)] if best > 0.5 else None


@cache
def _weights_of(family: Family) -> set[tuple[str, tuple[int, ...]]]:
    """Return names and sizes of the network's weights."""
    return {(key, tuple(value.shape)) for key, value in empty_model(family).network.state_dict().items()}


def _strict(source: str | Path, family: Family, part: State, statistics: State | None) -> State:
    """Return the model's state dict; every weight is used and every one is given."""
    state = {f"network.{key}": value for key, value in _rows_by_head(part, family).items()}
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
    return {key: state[key] for key in wanted}


def _rows_by_head(part: State, family: Family) -> State:
    """Bring the rows of q, k and v into the network's order."""
    if family.rows == "by_head":
        return part
    width = family.config.network.head_channels
    return {
        key: diffusers_names.interleaved(list(value.chunk(3)), len(value) // 3 // width) if ".qkv." in key else value
        for key, value in part.items()
    }


def empty_model(family: Family) -> Any:
    """Return the family's model without memory for its weights."""
    build: Any = MODELS[family.model]
    with torch.device("meta"):
        return build(family.config)


def filled_model(converted: Converted) -> nn.Module:
    """Return the model with its converted weights in float32: of several, one at a time takes that memory."""
    model: nn.Module = empty_model(converted.family)
    model.load_state_dict({key: value.float() for key, value in converted.state.items()}, assign=True)
    return model
