"""What a checkpoint holds, part by part, as checksums: two that are alike bit for bit have the same."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.networks.encoders import TextEncoding
from tests.by_name import drawn

EMBEDDING, FPS, GIVEN = drawn("embedding", 2, 8), torch.tensor([4.0, 8.0]), torch.tensor([[True, *[False] * 4, True]])
TEXTS = TextEncoding(EMBEDDING, drawn("states", 2, 77, 8), torch.ones(2, 77, dtype=torch.bool))
SAMPLED = {
    "prior": lambda model, noise: model.sample(TEXTS, TEXTS[:1], noise),
    "decoder": lambda model, noise: model.sample(EMBEDDING, noise, FPS, num_frames=3),
    "interpolation": lambda model, noise: model.fill(
        drawn("video", 2, 3, 6, 8, 8), GIVEN.expand(2, -1), EMBEDDING, FPS, noise
    ),
    "sr_spacetime": lambda model, noise: model.sample(drawn("low", 2, 3, 3, 4, 4), noise),
    "sr_spatial": lambda model, noise: model.sample(drawn("low", 2, 3, 1, 4, 4), noise),
}


def outcome(path: Path) -> dict[str, str]:
    """Return the checksums of the weights, averages, optimiser, schedule and step in a checkpoint, and of samples."""
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    parts = {
        "weights": {name: value for name, value in state.items() if name.startswith("model.")},
        "averages": {name: value for name, value in state.items() if name.startswith("ema.")},
        "optimiser": checkpoint["optimizer_states"],
        "schedule": checkpoint["lr_schedulers"],
        "step": checkpoint["global_step"],
        "samples": samples(load_model(path)),
    }
    assert parts["weights"] and parts["averages"]
    return {name: digest(part) for name, part in parts.items()}


@torch.no_grad()
def samples(model: Any) -> torch.Tensor:
    """Return two samples, always from the same noise and conditions."""
    return SAMPLED[model.name](model.eval(), NoiseStream.keyed([("sample", 0), ("sample", 1)]))


def digest(tree: Any) -> str:
    """Return the sha256 of nested containers of tensors and plain values."""
    return sha256(repr(plain(tree)).encode()).hexdigest()


def plain(tree: Any) -> Any:
    """Replace every tensor by its type, its shape and the sha256 of its bytes."""
    if isinstance(tree, torch.Tensor):
        content = tree.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(tree.dtype), tuple(tree.shape), sha256(content).hexdigest()
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list | tuple) else tree
