"""Model cards: a README.md beside exported weights that says what is known about them, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = {
    "clip": "A small CLIP, from texts and images to embeddings that can be compared",
    "prior": "The prior P, from a text to the CLIP embedding of an image of it",
    "decoder": "The decoder D, from a CLIP image embedding, and for videos a frame rate, to frames",
    "interpolation": "Frame interpolation F, from a video to one with frames between its own",
    "sr_spacetime": "Super-resolution SR_l, over space and time",
    "sr_spatial": "Super-resolution SR_h, frame by frame",
}
HEAD = """\
---
license: unknown
tags: [make-a-video, text-to-video]
---
"""
LICENCE = """\
## Licence

Not stated: whoever publishes these weights says it here and in the first lines. Weights that were trained from others'
weights keep their terms.
"""


@dataclass(frozen=True)
class Facts:
    """What is known about exported weights.

    Attributes:
        model: Name of the model.
        num_parameters: Trained numbers.
        config: Its configuration as plain containers.
        origin: Which weights they are.
    """

    model: str
    num_parameters: int
    config: dict[str, Any]
    origin: str


def model_card(facts: Facts, folder: str) -> str:
    """Return the card of a folder that holds one model."""
    return f"""{HEAD}
# {folder}

{ROLES[facts.model]}: a part of Make-A-Video (Singer et al. 2022), in lightning_mav.

| | |
|---|---|
| model | `{facts.model}` |
| parameters | {facts.num_parameters:,} |
| weights | {facts.origin} |
{_config_rows(facts.config)}

## Use

    python -m lightning_mav generate --model PIPELINE --{facts.model} {folder} --prompt "..." --out video.mp4

```python
from lightning_mav.checkpoint.models import load_model

model = load_model("{folder}", "{facts.model}")
```

{LICENCE}"""


def pipeline_card(parts: Mapping[str, Facts], folder: str) -> str:
    """Return the card of a folder with a sub-folder for each part of the cascade."""
    rows = _rows(parts)
    option, argument = ("", "") if "clip" in parts else (" --clip SPEC", ', {"clip": "SPEC"}')
    return f"""{HEAD}
# {folder}

Text to video by the cascade of Make-A-Video (Singer et al. 2022), in lightning_mav. Each part has a card of its own.

| part | parameters | weights |
|---|---|---|
{rows}

## Use

    python -m lightning_mav generate --model {folder}{option} --prompt "..." --out video.mp4

```python
from lightning_mav.pipeline import MakeAVideo

pipeline = MakeAVideo.from_pretrained("{folder}"{argument})
```
{_clip_note(parts)}
{LICENCE}"""


def diffusers_card(models: Sequence[Facts], classes: Mapping[str, str], folder: str) -> str:
    """Return the card of a folder in diffusers' layout; ``classes`` names the class of each sub-folder."""
    rows = _rows({facts.model: facts for facts in models})
    loads = "\n".join(f'{name} = {one}.from_pretrained("{folder}/{name}")' for name, one in classes.items())
    given = " ".join(f"{folder}/{name}" for name in classes)
    return f"""{HEAD}
# {folder}

Networks of lightning_mav in the layout of diffusers' UnCLIP pipeline (Karlo), without temporal layers and frame rate.

| model here | its parameters | weights |
|---|---|---|
{rows}

## Use

```python
{loads}
```

These classes are diffusers', the objects arguments of its `UnCLIPPipeline`. Back into models of lightning_mav:

    python -m lightning_mav convert --source {given} --out models/back

{LICENCE}"""


def _rows(parts: Mapping[str, Facts]) -> str:
    return "\n".join(f"| `{name}` | {facts.num_parameters:,} | {facts.origin} |" for name, facts in parts.items())


def _clip_note(parts: Mapping[str, Facts]) -> str:
    if "clip" in parts:
        return ""
    return (
        "\nThe CLIP that these models were trained with is not here: `--clip open_clip:MODEL:FILE` for one names it.\n"
    )


def _config_rows(config: Mapping[str, Any]) -> str:
    """Return a row for each entry of a configuration, its sections on one line."""
    rows = {key: _text(value).removeprefix("(").removesuffix(")") for key, value in config.items()}
    return "\n".join(f"| {key} | {row} |" for key, row in rows.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{key} {_text(item)}" for key, item in value.items()]
    return f"({', '.join(map(str, value))})" if isinstance(value, list) else str(value)
