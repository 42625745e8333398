"""Time a space-time U-Net on a video against the same network without time on the same frames, interleaved in one run.

    python tests/benchmarks/video_over_image.py [rounds]

Prints the median ratio of the forward passes for float32 and bfloat16 and batches of 1 and 4, at 32x32 and 64 channels.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from lightning_mav.allocator import keep_freed_memory
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.unet import UNet, UNetConfig

FRAMES, SIZE = 16, 32


def network(temporal: TemporalConfig | None) -> UNet:
    config = UNetConfig(
        channels=64,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=2,
        attention_downsamples=(2, 4),
        image_embedding_dim=64,
        context_dim=64,
        fps=temporal is not None,
        temporal=temporal,
    )
    return UNet(config).eval()


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def ratio(batch: int, dtype: torch.dtype, rounds: int) -> float:
    video_net, image_net = network(TemporalConfig()), network(None)
    video, embedding = torch.randn(batch, 3, FRAMES, SIZE, SIZE), torch.randn(batch, 64)
    frames = video.transpose(1, 2).reshape(-1, 3, 1, SIZE, SIZE)
    timestep, fps = torch.full((batch,), 500), torch.full((batch,), 16.0)

    def on_video() -> Any:
        return video_net(video, timestep, fps=fps, image_embedding=embedding)

    def on_frames() -> Any:
        embeddings = embedding.repeat_interleave(FRAMES, 0)
        return image_net(frames, timestep.repeat_interleave(FRAMES), image_embedding=embeddings)

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        on_video(), on_frames()
        return statistics.median(seconds(on_video) / seconds(on_frames) for _ in range(rounds))


if __name__ == "__main__":
    keep_freed_memory()  # as the commands do
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1, 4):
            print(
                f"{str(dtype).removeprefix('torch.'):9s} batch {batch}: {ratio(batch, dtype, rounds):.2f}", flush=True
            )
