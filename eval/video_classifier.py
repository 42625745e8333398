"""A small video network trained on moving shapes, so that FVD and the Inception Score run on them without any download.

It learns the shape, both colours and how things move, on training looks alone; stills, jitter and borrowed motions are
among its examples, so its features tell right motion from wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as fn

from eval.controls import CONTROLS, control_scene, motion_label
from lightning_mav.checkpoint.io import write_atomically
from lightning_mav.data.scenes import BACKGROUNDS, FOREGROUNDS, SHAPES
from lightning_mav.data.transforms import dequantise
from lightning_mav.metrics.extractors import NetworkExtractor
from lightning_mav.metrics.preprocess import Preprocess
from lightning_mav.seeding import hashed_seed

FRAMES, SIZE, FPS = 16, 16, 16.0
DIM = 24
MOTION_LABELS = (*SHAPES, "still", "jittered")
HEADS = {"shape": len(SHAPES), "foreground": len(FOREGROUNDS), "background": len(BACKGROUNDS), "motion": 6}
WIDTHS = (3, 32, 48, 64)


class VideoClassifier(nn.Module):
    """Three strided space-time convolutions, a mean, ``DIM`` features, and one linear head per question."""

    def __init__(self) -> None:
        super().__init__()
        strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv3d(a, b, (5, 3, 3), stride, (2, 1, 1)), nn.GroupNorm(8, b), nn.ReLU())
                for (a, b), stride in zip(pairwise(WIDTHS), strides, strict=True)
            )
        )
        self.features = nn.Linear(2 * 2 * 4 * WIDTHS[-1], DIM)
        self.heads = nn.ModuleDict({name: nn.Linear(DIM, num) for name, num in HEADS.items()})

    def forward(self, video: Tensor) -> Tensor:
        """Return features (B, DIM) of videos (B, 3, 16, 16, 16) in [-1, 1]."""
        features: Tensor = self.features(self.layers(video).flatten(1))
        return features

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """Return the answers to each question, (B, K)."""
        return {name: head(features.relu()) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Training:
    """How long a classifier is trained."""

    steps: int = 500
    batch_size: int = 32
    lr: float = 3e-3


FULLY = Training()


def trained_classifier(path: Path, seed: int = 0, training: Training = FULLY) -> VideoClassifier:
    """Return the classifier stored at ``path``; train and store it if it is not there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hashed_seed("video classifier", seed))
        network = VideoClassifier()
    if path.exists():
        network.load_state_dict(load_file(path))
        return network.eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=training.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, total_steps=training.steps)
    for step in range(training.steps):
        video, answers = examples(range(step * training.batch_size, (step + 1) * training.batch_size), seed)
        found = network.logits(network(video))
        losses = [fn.cross_entropy(found[name], wanted) for name, wanted in answers.items()]
        optimizer.zero_grad()
        loss: Any = torch.stack(losses).sum()
        loss.backward()
        optimizer.step()
        schedule.step()
    write_atomically(path, lambda file: file.write(save(network.state_dict())))
    return network.eval()


def examples(indices: Sequence[int], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return training videos (B, 3, 16, 16, 16) in [-1, 1] and the answers to each question, (B,)."""
    kinds = ["real" if i % 2 else CONTROLS[1 + i // 2 % 3] for i in indices]
    scenes = [control_scene(kind, seed, i, "train") for kind, i in zip(kinds, indices, strict=True)]
    times = torch.arange(FRAMES) / FPS
    video = torch.stack([scene.render(times, SIZE) for scene in scenes]).permute(0, 4, 1, 2, 3)
    answers = {
        "shape": [SHAPES.index(scene.shape) for scene in scenes],
        "foreground": [list(FOREGROUNDS).index(scene.foreground) for scene in scenes],
        "background": [list(BACKGROUNDS).index(scene.background) for scene in scenes],
        "motion": [MOTION_LABELS.index(motion_label(kind, scene)) for kind, scene in zip(kinds, scenes, strict=True)],
    }
    return dequantise(video), {name: torch.tensor(values) for name, values in answers.items()}


def as_extractor(network: VideoClassifier, seed: int) -> NetworkExtractor:
    """Return the features as an ``Extractor``."""
    return NetworkExtractor(
        "moving_shapes", network, Preprocess(SIZE, antialias=True), DIM, (FRAMES, FRAMES), f"seed {seed}"
    )


@torch.inference_mode()
def class_logits(network: VideoClassifier, features: Tensor) -> Tensor:
    """Return logits (B, 24) of shape and foreground together, for the Inception Score; at best it is 24."""
    found = network.logits(features)
    shape, colour = found["shape"].log_softmax(1), found["foreground"].log_softmax(1)
    return (shape[:, :, None] + colour[:, None]).flatten(1)
