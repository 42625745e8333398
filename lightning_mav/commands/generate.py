"""``generate``: videos from prompts, by a pipeline folder."""

from typing import Literal

Part = Literal["prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial"]
SamplerName = Literal["ddpm", "ddim", "dpm++"]


def generate(
    model: str,
    out: str,
    prompt: str | None = None,
    prompts: str | None = None,
    seed: int = 0,
    fps: float = 6.0,
    frames: int = 16,
    frame_skip: int = 5,
    until: Part = "sr_spatial",
    guidance_scale: float | dict[str, float] | None = None,
    steps: int | str | dict[str, int | str] | None = None,
    sampler: SamplerName | dict[str, SamplerName] | None = None,
    eta: float | dict[str, float] | None = None,
    output_size: int | None = None,
    suffix: Literal["mp4", "gif", "webp"] = "mp4",
    clip: str | None = None,
    prior: str | None = None,
    decoder: str | None = None,
    interpolation: str | None = None,
    sr_spacetime: str | None = None,
    sr_spatial: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "bf16", "float32"] = "auto",
    batch_size: int = 8,
) -> None:
    """Make videos from text; beside each a contact sheet (.png) and what is needed to make it again (.json).

    Args:
        model: Pipeline folder, with a sub-folder for each model.
        out: With --prompt the file to write, .mp4, .gif or .webp; with --prompts a folder.
        prompt: One text.
        prompts: Text file with one prompt per line.
        seed: With the prompt itself, decides the video; other prompts make no difference.
        fps: Frames per second of the decoder's video, 1 to 30; interpolation multiplies it by frame_skip.
        frames: Frames of the decoder's video.
        frame_skip: Frames from one of those to the next after interpolation.
        until: Last model to run; "prior" writes image embeddings (.safetensors).
        guidance_scale: Strength of the text, for all models that know it or for one: --guidance_scale.decoder 4.
        steps: Sampling steps or a spacing such as ddim25, for all models or for one: --steps.decoder 50.
        sampler: For all models or for one: --sampler.decoder ddim.
        eta: Fresh noise in the steps of ddim, 0 none, 1 as in ddpm's, for all models or for one: --eta.decoder 2.
        output_size: Resize the frames to this height and width in the end, bicubically.
        suffix: Format of the files in a folder.
        clip: CLIP to use instead of the one in the pipeline folder.
        prior: Prior to use instead.
        decoder: Decoder to use instead.
        interpolation: Interpolation network to use instead.
        sr_spacetime: First super-resolution to use instead.
        sr_spatial: Second super-resolution to use instead.
        device: Where to compute; auto takes a GPU if there is one.
        precision: auto is bf16 on a GPU or a CPU with AMX, float32 elsewhere.
        batch_size: Most videos made at once.
    """
    settings = dict(locals())
    from pathlib import Path

    from lightning_mav import generation
    from lightning_mav.pipeline import PARTS
    from lightning_mav.results import EMBEDDING_SUFFIX, Results, asked, numbered

    texts, parts = asked(prompt, prompts), PARTS[: PARTS.index(until) + 1]
    generation.check_positive(frames=frames, frame_skip=frame_skip, output_size=output_size, batch_size=batch_size)
    generation.check_frames(frames, frame_skip, parts)
    ending = EMBEDDING_SUFFIX if until == "prior" else f".{suffix}"
    files = [Path(out)] if prompt is not None else numbered(out, texts, ending)
    results = Results("generate", fps * frame_skip if "interpolation" in parts else fps, output_size)
    results.check(files, embeddings=until == "prior")

    replaced = {name: settings.pop(name) for name in ("clip", *PARTS)}
    pipeline = generation.open_pipeline(model, replaced, device, precision, batch_size)
    configs = generation.configs_of(pipeline, parts)
    changes = {"guidance_scale": guidance_scale, "steps": steps, "sampler": sampler, "eta": eta}
    pipeline.sampling = generation.sampling_of(configs, **changes)
    settings |= generation.resolved(pipeline, ("clip", *parts)) | {"prompts": None, "suffix": None}
    for start in range(0, len(texts), batch_size):
        batch = slice(start, start + batch_size)
        with generation.Progress(f"{start + len(texts[batch])}/{len(texts)} ") as progress:
            made = pipeline.generate(texts[batch], fps, frames, frame_skip, seed, until, on_step=progress)
        for text, file, one in zip(texts[batch], files[batch], made, strict=True):
            print(results.write(one, file, settings | {"prompt": text, "out": str(file)}))
