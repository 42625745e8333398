"""Applications of the interpolation network to single pictures (paper section 3.3)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.data.images import read_image
from lightning_mav.data.transforms import crop, resize_to_cover, to_network_range
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.pipeline import MakeAVideo, Part, Progress


def animate(
    pipeline: MakeAVideo,
    first: str | None,
    last: str | None,
    parts: Sequence[Part],
    fps: float,
    frames: int,
    seed: int = 0,
    on_step: Progress | None = None,
) -> Tensor:
    """Make a video whose first frame, last frame or both are given.

    Args:
        pipeline: Where the models are.
        first: Image file of the first frame, if given.
        last: Image file of the last frame, if given.
        parts: "interpolation" and the super-resolutions to run after it.
        fps: Frames per second, 1 to 30.
        frames: Frames of the video, at least 2.
        seed: Of the noise.
        on_step: Progress of the part at work.

    Returns:
        (3, frames, H, W) in [-1, 1].

    Raises:
        ConfigError: No picture, or frames or fps out of range.
        DataError: A picture cannot be read.
    """
    if not first and not last:
        raise ConfigError("give --image PICTURE, --last PICTURE or both")
    if frames < 2 or not 1 <= fps <= 30:
        raise ConfigError(f"frames {frames} must be at least 2, and fps {fps:g} between 1 and 30")
    model = pipeline.load("interpolation")
    video, mask = given_frames({0: first, frames - 1: last}, frames, model.config.image_size)
    # As in training, the embedding is that of a frame at the network's own size.
    clip = load_clip(str(pipeline.paths["clip"]))
    embedding, empty = clip.encode_image(video[:, :, int(mask[0].long().argmax())]), clip.encode_text([""])
    tell = None if on_step is None else partial(on_step, "interpolation")
    noise = NoiseStream.keyed([("animate", seed)])
    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=pipeline.precision == "bf16"):
        settings = pipeline.sampling.get("interpolation")
        video = (
            model.fill(video, mask, embedding, torch.tensor([float(fps)]), noise, settings, tell, (empty, empty))
            .float()
            .cpu()
        )
    for part in parts[1:]:
        video = pipeline.enlarge(part, video, seed, ["animate"], on_step)  # type: ignore[arg-type]
    return video[0]


def given_frames(pictures: dict[int, str | None], frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Return a video (1, 3, frames, size, size) with pictures in their places, and the mask (1, frames) of those."""
    video, mask = torch.zeros(1, 3, frames, size, size), torch.zeros(1, frames, dtype=torch.bool)
    for place, path in pictures.items():
        if path:
            picture = crop(resize_to_cover(read_image(path)[None], size, size), size, size)
            video[0, :, place] = to_network_range(picture)[:, 0]
            mask[0, place] = True
    return video, mask
