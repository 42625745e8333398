"""``animate``: a picture becomes a video, or two pictures become the video between them (paper section 3.3)."""

from typing import Literal

Part = Literal["interpolation", "sr_spacetime", "sr_spatial"]


def animate(
    model: str,
    out: str,
    image: str | None = None,
    last: str | None = None,
    seed: int = 0,
    fps: float = 16.0,
    frames: int = 16,
    until: Part = "sr_spatial",
    guidance_scale: float | None = None,
    steps: int | str | dict[str, int | str] | None = None,
    output_size: int | None = None,
    clip: str | None = None,
    interpolation: str | None = None,
    sr_spacetime: str | None = None,
    sr_spatial: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "bf16", "float32"] = "auto",
) -> None:
    """Make a video that starts with one picture, ends with another, or both, by the interpolation network.

    Args:
        model: Pipeline folder, with a sub-folder for each model.
        out: File to write, .mp4, .gif or .webp; a contact sheet (.png) and a record (.json) come beside it.
        image: The first frame; without it, what comes before --last is made up.
        last: The last frame; without it, what comes after --image is made up.
        seed: Of what is made up.
        fps: Frames per second of the video, 1 to 30.
        frames: Frames of the video; the network was trained on 16.
        until: Last model to run.
        guidance_scale: Strength of the picture's meaning.
        steps: Sampling steps or a spacing such as ddim25, for all models or for one: --steps.interpolation 50.
        output_size: Resize the frames to this height and width in the end, bicubically.
        clip: CLIP to use instead of the one in the pipeline folder.
        interpolation: Interpolation network to use instead.
        sr_spacetime: First super-resolution to use instead.
        sr_spatial: Second super-resolution to use instead.
        device: Where to compute; auto takes a GPU if there is one.
        precision: auto is bf16 on a GPU or a CPU with AMX, float32 elsewhere.
    """
    settings = dict(locals())
    from pathlib import Path

    from lightning_mav import generation
    from lightning_mav.animation import animate as make
    from lightning_mav.pipeline import PARTS
    from lightning_mav.results import Results

    parts = PARTS[2 : PARTS.index(until) + 1]
    results = Results("animate", fps, output_size)
    generation.check_positive(output_size=output_size)
    results.check([Path(out)])

    replaced = {name: settings.pop(name) for name in ("clip", *PARTS[2:])}
    pipeline = generation.open_pipeline(model, replaced, device, precision)
    configs = generation.configs_of(pipeline, parts)
    pipeline.sampling = generation.sampling_of(configs, guidance_scale=guidance_scale, steps=steps)
    with generation.Progress() as progress:
        video = make(pipeline, image, last, parts, fps, frames, seed, progress)
    settings |= generation.resolved(pipeline, ("clip", *parts))
    print(results.write(video, Path(out), settings))
