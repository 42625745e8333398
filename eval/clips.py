"""The CLIPs of CLIPSIM and CLIP-FID."""

import torch

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.metrics.weights import find_weights
from lightning_mav.networks.encoders import ClipEncoder, SmallClipEncoder
from lightning_mav.networks.small_clip import SmallClip, SmallClipConfig
from lightning_mav.seeding import hashed_seed


def published_clip(weights: str, model: str, path: str | None = None) -> ClipEncoder:
    """Return OpenAI's CLIP.

    Args:
        weights: Its row in the registry of weights.
        model: open_clip's name of the architecture, with QuickGELU.
        path: The file, if it lies in none of the usual places.

    Raises:
        CheckpointError: No such file, or another.
    """
    return load_clip(f"open_clip:{model}:{find_weights(weights, path).path}")


class RandomClip(SmallClipEncoder):
    """A small CLIP with random weights: it checks that everything runs."""

    name = "random"


def random_clip(seed: int = 0) -> RandomClip:
    """Return a random CLIP that depends on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed("random_clip", seed))
        return RandomClip(SmallClip(SmallClipConfig(32, 32, (16, 32), text_width=32, text_layers=1, text_heads=2)))
