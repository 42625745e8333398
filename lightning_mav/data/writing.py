"""Writing mp4 files."""

from fractions import Fraction
from pathlib import Path

import av
from torch import Tensor


def write_mp4(path: Path, frames: Tensor, fps: float, crf: int = 15) -> None:
    """Write uint8 frames (F, H, W, 3) as h264, playable everywhere.

    Args:
        path: file to write.
        frames: the frames; height and width even.
        fps: frames per second.
        crf: quality, 0 lossless, 23 the encoder's default.
    """
    height, width = frames.shape[1:3]
    assert height % 2 == 0 and width % 2 == 0, (height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
