"""One pass of the cascade's second half at the paper's frame sizes, with tiny networks, in chunks of frames.

    python tests/benchmarks/real_scale.py [frames_per_chunk]

16 frames of 64x64 become 76 of 64x64, then of 256x256, then of 768x768. Prints shapes, seconds and the peak memory.
"""

import resource
import sys
import time
from typing import Any

import torch

from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.models.base import Objective, Sampling
from lightning_mav.models.interpolation import Interpolation, InterpolationConfig
from lightning_mav.models.super_resolution import SpacetimeSR, SpatialSR, SuperResolutionConfig
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.unet import UNetConfig

OBJECTIVE = Objective(parameterisation="v", variance="fixed_small")


def noise(name: str) -> NoiseStream:
    return NoiseStream.keyed([(name, 0)])


def report(name: str, video: torch.Tensor, start: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {tuple(video.shape)}, {time.perf_counter() - start:.0f} s, peak {peak:.2f} GiB", flush=True)


def main(frames_per_chunk: int) -> None:
    unet = UNetConfig(channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(2,), head_channels=16)
    unet = UNetConfig(**{**vars(unet), "norm_groups": 8, "image_embedding_dim": 16, "context_dim": 16})
    video_unet = UNetConfig(**{**vars(unet), "fps": True, "temporal": TemporalConfig()})
    plain = {"attention_downsamples": (), "mid_attention": False, "image_embedding_dim": None, "context_dim": None}
    sr_unet = UNetConfig(**{**vars(unet), **plain})
    st_unet = UNetConfig(**{**vars(sr_unet), "temporal": TemporalConfig(attention=False)})
    two_steps: dict[str, Any] = {"objective": OBJECTIVE, "sampling": Sampling("ddim", 2)}
    two_steps["frames_per_chunk"] = frames_per_chunk

    start = time.perf_counter()
    model = Interpolation(InterpolationConfig(video_unet, OBJECTIVE, Sampling("ddim", 2), unshuffle=2))
    embedding, fps = torch.zeros(1, 16), torch.full((1,), 30.0)
    windows = [noise(f"window {i}") for i in range(5)]
    video = model.interpolate(torch.zeros(1, 3, 16, 64, 64), 5, embedding, fps, windows)
    report("interpolation", video, start)
    video = SpacetimeSR(SuperResolutionConfig(st_unet, scale=4, unshuffle=4, **two_steps)).sample(video, noise("sr"))
    report("sr_spacetime", video, start)
    video = SpatialSR(SuperResolutionConfig(sr_unet, scale=3, unshuffle=4, **two_steps)).sample(video, noise("sr"))
    report("sr_spatial", video, start)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
