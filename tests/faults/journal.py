"""What a run consumed: every sample with its noise, timestep and loss, written down as it happens."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Journal(Callback):
    """Adds a line to journal-RANK.jsonl in the run folder for every batch; what is written survives a kill."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = Path(trainer.default_root_dir, f"journal-{trainer.global_rank}.jsonl")
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.write({"resumed": trainer.global_step})
        self.listen(trainer, pl_module.model)

    def listen(self, trainer: Trainer, model: Any) -> None:
        """Hear what the model's loss is called with."""
        loss = model.loss

        def heard(batch: dict[str, Any], noise: torch.Tensor, timestep: torch.Tensor) -> dict[str, torch.Tensor]:
            losses: dict[str, torch.Tensor] = loss(batch, noise, timestep)
            columns = [batch["index"].tolist(), batch["position"].tolist(), timestep.tolist(), map(digest, noise)]
            columns.append(losses["loss"].tolist())
            self.write({"step": trainer.global_step, "samples": list(zip(*columns, strict=True))})
            return losses

        model.loss = heard

    def write(self, line: dict[str, Any]) -> None:
        os.write(self.file, (json.dumps(line) + "\n").encode())


def digest(noise: torch.Tensor) -> str:
    """Return the sha256 of a tensor's bytes."""
    return sha256(noise.numpy().tobytes()).hexdigest()


def consumed(run: Path, rank: int = 0) -> list[tuple[Any, ...]]:
    """Return (step, index, position, timestep, noise, loss) of every sample that the run as it ended is made of.

    Of the steps that a killed process took and another one took again, the last counts.
    """
    samples: list[tuple[Any, ...]] = []
    for line in lines(run, rank):
        samples = [one for one in samples if one[0] < line.get("resumed", one[0] + 1)] + samples_of(line)
    return samples


def written(run: Path) -> list[tuple[Any, ...]]:
    """Return the same of every sample that any process took, killed ones too."""
    return [sample for line in lines(run, 0) for sample in samples_of(line)]


def lines(run: Path, rank: int) -> list[dict[str, Any]]:
    """Return the lines of a journal."""
    return [json.loads(line) for line in (run / f"journal-{rank}.jsonl").read_text().splitlines()]


def samples_of(line: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the samples of one batch; none of the line that begins a process."""
    return [(line["step"], *one) for one in line.get("samples", [])]
