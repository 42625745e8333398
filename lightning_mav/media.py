"""Videos as files that play everywhere, and as contact sheets; every file is written whole or not at all."""

import io
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as fn
from einops import rearrange
from PIL import Image
from torch import Tensor

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.transforms import to_uint8
from lightning_mav.data.writing import write_mp4
from lightning_mav.errors import ConfigError

FASTEST_GIF = 50.0  # frames per second; players slow anything faster down to 10
PIXEL_ART = 64  # videos up to this width lose visibly in lossy formats and are small anyway


def write_video(video: Tensor, path: str | Path, fps: float) -> None:
    """Write a video in the format that the suffix of ``path`` names: .mp4 (h264), .gif or .webp.

    Args:
        video: (3, F, H, W) in [-1, 1].
        path: File to write.
        fps: Frames per second.

    Raises:
        ConfigError: See ``check_format``.
        MachineError: The file cannot be written.
    """
    path = Path(path)
    check_format(path, fps)
    content = ENCODERS[path.suffix.lower()](to_uint8(video.cpu()), fps)
    write_atomically(path, lambda file: file.write(content))


def check_format(path: str | Path, fps: float) -> None:
    """Find out, before any work is done, whether a video can be written to ``path``.

    Raises:
        ConfigError: An unknown suffix, or more frames per second than the format plays.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in ENCODERS:
        raise ConfigError(f"{path}: cannot write '{suffix}' files; end the name in {' or '.join(ENCODERS)}")
    if suffix == ".gif" and fps > FASTEST_GIF:
        raise ConfigError(
            f"{path}: GIF plays {FASTEST_GIF:g} frames per second at most, not {fps:g}; use .mp4 or .webp"
        )


def write_image(image: Tensor, path: str | Path) -> None:
    """Write an image (3, H, W) in [-1, 1] as PNG, pixel by pixel."""
    _write_png(to_uint8(image[:, None])[0], path)


def write_sheet(videos: Sequence[Tensor], path: str | Path, num_frames: int = 8, gap: int = 2) -> None:
    """Write a contact sheet as PNG; see ``contact_sheet``."""
    _write_png(contact_sheet(videos, num_frames, gap), path)


def _write_png(pixels: Tensor, path: str | Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels.cpu().numpy()).save(buffer, "PNG")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def contact_sheet(videos: Sequence[Tensor], num_frames: int = 8, gap: int = 2) -> Tensor:
    """Return a picture with a row per video, its frames from left to right, small ones magnified.

    Args:
        videos: Videos (3, F, H, W) in [-1, 1] of one size.
        num_frames: At most this many frames of each, spread evenly from first to last.
        gap: White pixels between frames.

    Returns:
        uint8 (height, width, 3).
    """
    rows = magnified(torch.stack([video[:, spread(video.shape[1], num_frames)].cpu() for video in videos]))
    padded = fn.pad(rows, (0, gap, 0, gap), value=1.0)
    sheet = rearrange(padded, "b c f h w -> c 1 (b h) (f w)")[..., : -gap or None, : -gap or None]
    return to_uint8(sheet)[0]


def magnified(video: Tensor, side: int = 64) -> Tensor:
    """Repeat the pixels of small frames (..., H, W), so that a person sees them; at most to ``side`` pixels."""
    factor = max(1, side // max(video.shape[-2:]))
    return video.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def spread(total: int, count: int) -> list[int]:
    """Return at most ``count`` of the numbers 0..total-1, spread evenly, the first and the last among them."""
    count = min(count, total)
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def even(frames: Tensor) -> Tensor:
    """Repeat the last row and column of frames (F, H, W, 3) where height or width is odd, as h264 wants both even."""
    _, height, width, _ = frames.shape
    rows, columns = (torch.arange(size + size % 2).clamp(max=size - 1) for size in (height, width))
    return frames[:, rows][:, :, columns]


def durations(num_frames: int, fps: float, unit: int) -> list[int]:
    """Return how long each frame is shown, in ms, in multiples of ``unit`` ms that never drift from ``fps``."""
    ends = [round(i * 1000 / fps / unit) * unit for i in range(num_frames + 1)]
    return [end - start for start, end in pairwise(ends)]


def _mp4(frames: Tensor, fps: float) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_mp4(path, even(frames), fps)
        return path.read_bytes()


def _gif(frames: Tensor, fps: float) -> bytes:
    return _animation(frames, "GIF", duration=durations(len(frames), fps, unit=10), disposal=1)


def _webp(frames: Tensor, fps: float) -> bytes:
    lossless = frames.shape[2] <= PIXEL_ART
    return _animation(frames, "WEBP", duration=durations(len(frames), fps, unit=1), lossless=lossless, quality=85)


def _animation(frames: Tensor, kind: str, **options: Any) -> bytes:
    first, *others = (Image.fromarray(frame) for frame in frames.numpy())
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others, loop=0, **options)
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[Tensor, float], bytes]] = {".mp4": _mp4, ".gif": _gif, ".webp": _webp}
