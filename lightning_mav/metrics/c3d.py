"""C3D (Tran et al. 2015) with the 101 classes of UCF-101, the classifier behind that benchmark's Inception Score.

The convention is TGANv2's: its .npz files, 16 frames, resized to 112 pixels, a mean clip subtracted.
"""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mav.errors import CheckpointError

NUM_CLASSES = 101
NUM_FRAMES = 16
SIDE = 112

# layer -> channels in and out, as multiples of the width; 0 is the three colours
_CONVOLUTIONS = {
    "conv1a": (0, 1),
    "conv2a": (1, 2),
    "conv3a": (2, 4),
    "conv3b": (4, 4),
    "conv4a": (4, 8),
    "conv4b": (8, 8),
    "conv5a": (8, 8),
    "conv5b": (8, 8),
}
_POOLED = {"conv1a": (1, 2, 2), "conv2a": (2, 2, 2), "conv3b": (2, 2, 2), "conv4b": (2, 2, 2), "conv5b": (2, 2, 2)}


class C3D(nn.Module):
    """Video to the 101 logits of UCF-101.

    Args:
        width: Channels of the first layer; the published weights have 64.
        hidden: Width of the two hidden linear layers; the published weights have 4096.
    """

    mean: Tensor

    def __init__(self, width: int = 64, hidden: int = 4096) -> None:
        super().__init__()
        for name, (before, after) in _CONVOLUTIONS.items():
            self.add_module(name, nn.Conv3d(before * width or 3, after * width, 3, padding=1))
        self.fc6, self.fc7 = nn.Linear(8 * width * 4 * 4, hidden), nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, NUM_CLASSES)
        self.register_buffer("mean", torch.zeros(3, NUM_FRAMES, SIDE, SIDE))

    def forward(self, video: Tensor) -> Tensor:
        """Map videos (B, 3, 16, H, W) in [-1, 1], RGB, to logits (B, 101)."""
        x = prepare(video) - self.mean
        for name in _CONVOLUTIONS:
            x = F.relu(self.get_submodule(name)(x))
            if name in _POOLED:
                x = F.max_pool3d(x, _POOLED[name], ceil_mode=True)
        x = F.relu(self.fc6(x.flatten(1)))
        logits: Tensor = self.fc8(F.relu(self.fc7(x)))
        return logits


def prepare(video: Tensor) -> Tensor:
    """Turn videos (B, 3, F, H, W) in [-1, 1] into C3D's range: BGR, 0 to 256, 112 pixels, corners kept in place."""
    b, _, f = video.shape[:3]
    frames = video.flip(1).transpose(1, 2).flatten(0, 1) * 128
    frames = F.interpolate(frames, (SIDE, SIDE), mode="bilinear", align_corners=True)
    return frames.view(b, f, 3, SIDE, SIDE).transpose(1, 2) + 128


def load_c3d(weights: Path, mean: Path, width: int = 64, hidden: int = 4096) -> C3D:
    """Return C3D with TGANv2's conv3d_deepnetA_ucf.npz and mean2.npz.

    Raises:
        CheckpointError: A file cannot be read, or lacks an array or has it in another shape.
    """
    model = C3D(width, hidden)
    arrays = _arrays(weights)
    state = {"mean": _mean_clip(_arrays(mean), mean)}
    for name, parameter in model.named_parameters():
        layer, kind = name.split(".")
        key = f"{layer}/{'W' if kind == 'weight' else 'b'}"
        if key not in arrays or arrays[key].shape != tuple(parameter.shape):
            found = arrays[key].shape if key in arrays else "nothing"
            raise CheckpointError(f"{weights}: {key} should have the shape {tuple(parameter.shape)}, found {found}")
        state[name] = torch.from_numpy(arrays[key])
    model.load_state_dict(state)
    return model.eval()


def _mean_clip(arrays: dict[str, np.ndarray], path: Path) -> Tensor:
    """Return the central (3, 16, 112, 112) of mean2.npz as TGANv2 cuts it: rows and columns 8 to 120."""
    if "mean" not in arrays or arrays["mean"].squeeze().shape[:2] != (3, NUM_FRAMES):
        raise CheckpointError(f"{path}: holds no mean clip of 3 channels and {NUM_FRAMES} frames; give mean2.npz")
    return torch.from_numpy(arrays["mean"].squeeze()[:, :, 8 : 8 + SIDE, 8 : 8 + SIDE].astype(np.float32))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile, AttributeError) as error:
        raise CheckpointError(f"{path}: is no readable .npz file; fetch it again") from error
