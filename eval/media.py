"""Videos as animated WebP: small, playable in every browser, embeddable in a page."""

import base64
import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.transforms import to_uint8


def write_webp(video: Tensor, fps: float, path: Path) -> None:
    """Write a video (3, F, H, W) in [-1, 1] as an endless animation; small frames keep every pixel."""
    frames = [Image.fromarray(frame) for frame in to_uint8(video).numpy()]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=round(1000 / fps),
        loop=0,
        lossless=video.shape[-1] <= 64,
        quality=82,
    )
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def write_sheet(video: Tensor, path: Path, num_frames: int = 8) -> None:
    """Write evenly spaced frames of a video (3, F, H, W) in [-1, 1] side by side as a still picture."""
    count = min(num_frames, video.shape[1])
    picked = [round(i * (video.shape[1] - 1) / max(count - 1, 1)) for i in range(count)]
    strip = to_uint8(video[:, picked]).permute(1, 0, 2, 3).flatten(1, 2)
    buffer = io.BytesIO()
    Image.fromarray(strip.numpy()).save(buffer, "PNG")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def data_uri(path: Path) -> str:
    """Return a picture file as a ``data:`` address."""
    kind = path.suffix.removeprefix(".")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
