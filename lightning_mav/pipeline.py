"""Text becomes video: the composition of the paper, equation (1).

    video = SR_h( SR_l( F( D( P(text), fps ) ) ) )

Every part is found in a folder of its own and stays in memory only while it works.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_mav.captions import fault_of
from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.checkpoint.ema import Weights
from lightning_mav.checkpoint.export import export_pipeline
from lightning_mav.checkpoint.models import load_model
from lightning_mav.checkpoint.resolve import resolve_model
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import CheckpointError, ConfigError
from lightning_mav.models.base import Sampling
from lightning_mav.networks.encoders import TextPair
from lightning_mav.precision import Precision, on_device

Part = Literal["prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial"]
PARTS: tuple[Part, ...] = ("prior", "decoder", "interpolation", "sr_spacetime", "sr_spatial")
FOLDERS = {"decoder": ("decoder", "decoder_video"), "sr_spacetime": ("sr_spacetime", "sr_spacetime_video")}

Progress = Callable[[str, int, int], None]
"""Told (part, steps done, steps in all)."""


class MakeAVideo:
    """The cascade of the five models and the CLIP that reads the text.

    Args:
        paths: Where each part lies: "clip" (see ``checkpoint.clip.load_clip``) and the names of ``PARTS``.
        device: Where to compute.
        precision: Of convolutions and matrix products; "auto" is bf16 where the hardware has it, else float32.
        sampling: Settings that replace a part's own.
        batch_size: Most videos that go through a part at once.
    """

    def __init__(
        self,
        paths: Mapping[str, str | Path],
        device: str = "cpu",
        precision: Precision = "auto",
        sampling: Mapping[str, Sampling] | None = None,
        batch_size: int = 8,
    ) -> None:
        self.paths = dict(paths)
        self.device, self.batch_size = torch.device(device), batch_size
        self.precision = on_device(precision, self.device.type)
        self.sampling = dict(sampling or {})

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, parts: Mapping[str, str | Path] | None = None, **options: Any
    ) -> "MakeAVideo":
        """Find the parts in the sub-folders of a local folder, of runs or exported; nothing is ever downloaded.

        Args:
            folder: Has a sub-folder for each part.
            parts: Paths that replace single ones.
            **options: Of the constructor.

        Raises:
            CheckpointError: Nothing that can be a part lies there.
        """
        found = {name: path for name in ("clip", *PARTS) if (path := _find(Path(folder), name))}
        if not found and not parts:
            raise CheckpointError(
                f"{folder}: holds none of {', '.join(PARTS)}; give a folder with one sub-folder per model"
            )
        return cls(found | dict(parts or {}), **options)

    def save_pretrained(self, folder: str | Path, weights: Weights = "averaged") -> None:
        """Write every part into a new folder that ``from_pretrained`` makes the same videos from.

        Args:
            folder: The folder to make.
            weights: Which weights of parts that are runs.

        Raises:
            ConfigError: The folder is there already, with something in it.
            CheckpointError: A part cannot be read, or has no raw weights.
            MachineError: The folder cannot be written.
        """
        export_pipeline(self.paths, folder, weights)

    def generate(
        self,
        prompts: Sequence[str],
        fps: float = 6.0,
        frames: int = 16,
        frame_skip: int = 5,
        seed: int = 0,
        until: Part = "sr_spatial",
        ids: Sequence[str] | None = None,
        on_step: Progress | None = None,
    ) -> Tensor:
        """Make one video per prompt.

        Args:
            prompts: B texts.
            fps: Frames per second of the decoder's video, 1 to 30; interpolation multiplies it by ``frame_skip``.
            frames: Frames of the decoder's video.
            frame_skip: Frames from one of those to the next after interpolation.
            seed: With a prompt's id, decides its noise, whatever else is in the batch.
            until: The last part to run.
            ids: Names of the prompts, by default the prompts themselves.
            on_step: Progress of the part at work.

        Returns:
            (B, 3, F, H, W) in [-1, 1], F = frames, or (frames - 1) * frame_skip + 1 after interpolation; for
            ``until="prior"`` the image embeddings (B, D).

        Raises:
            ConfigError: An empty prompt, or a frame rate the networks do not know.
            CheckpointError: A part is missing.
        """
        _check(prompts, fps)
        parts = PARTS[: PARTS.index(until) + 1]
        names = list(ids or prompts)
        embedding = self.embed(prompts, seed, names, on_step)
        result = embedding
        if "decoder" in parts:
            result = self.decode(embedding, fps, frames, seed, names, on_step, prompts)
        if "interpolation" in parts:
            result = self.interpolate(result, embedding, fps, frame_skip, seed, names, on_step, prompts)
        if "sr_spacetime" in parts:
            result = self.enlarge("sr_spacetime", result, seed, names, on_step)
        if "sr_spatial" in parts:
            result = self.enlarge("sr_spatial", result, seed, names, on_step)
        return result

    def embed(self, prompts: Sequence[str], seed: int, ids: Sequence[str], on_step: Progress | None = None) -> Tensor:
        """P: texts to CLIP image embeddings (B, D)."""
        prior, clip = self.load("prior"), load_clip(str(self._path("clip")))
        null = clip.encode_text([""])

        def sample(part: slice) -> Tensor:
            noise = _noise(seed, ids[part], "prior")
            text = clip.encode_text(list(prompts[part]))
            with self._autocast():
                embedding: Tensor = prior.sample(
                    text, null, noise, self.sampling.get("prior"), on_step=_tell(on_step, "prior")
                )
            return embedding

        return self._batched(sample, len(ids))

    def decode(
        self,
        embedding: Tensor,
        fps: float,
        frames: int,
        seed: int,
        ids: Sequence[str],
        on_step: Progress | None = None,
        prompts: Sequence[str] | None = None,
    ) -> Tensor:
        """D: embeddings (B, D) and frame rate to videos (B, 3, frames, H, W); a decoder with text reads it too."""
        decoder = self.load("decoder")
        text = self._texts(decoder, prompts, len(ids))
        rate = torch.full((len(ids),), float(fps)) if decoder.makes_videos else None

        def sample(part: slice) -> Tensor:
            rates = None if rate is None else rate[part]
            noise, settings = _noise(seed, ids[part], "decoder"), self.sampling.get("decoder")
            with self._autocast():
                video: Tensor = decoder.sample(
                    embedding[part], noise, rates, frames, settings, _tell(on_step, "decoder"), text(part)
                )
            return video

        return self._batched(sample, len(ids))

    def interpolate(
        self,
        video: Tensor,
        embedding: Tensor,
        fps: float,
        frame_skip: int,
        seed: int,
        ids: Sequence[str],
        on_step: Progress | None = None,
        prompts: Sequence[str] | None = None,
    ) -> Tensor:
        """F: K frames at ``fps`` to (K-1) * frame_skip + 1 frames at fps * frame_skip."""
        model, num_windows = self.load("interpolation"), video.shape[2]
        text = self._texts(model, prompts, len(ids))

        def sample(part: slice) -> Tensor:
            noise = [_noise(seed, ids[part], f"interpolation {window}") for window in range(num_windows)]
            rate = torch.full((len(ids[part]),), fps * frame_skip)
            settings, tell = self.sampling.get("interpolation"), _tell(on_step, "interpolation")
            with self._autocast():
                longer: Tensor = model.interpolate(
                    video[part],
                    frame_skip,
                    embedding[part],
                    rate,
                    noise,
                    sampling=settings,
                    on_step=tell,
                    text=text(part),
                )
            return longer

        return self._batched(sample, len(ids))

    def enlarge(
        self,
        name: Literal["sr_spacetime", "sr_spatial"],
        video: Tensor,
        seed: int,
        ids: Sequence[str],
        on_step: Progress | None = None,
    ) -> Tensor:
        """SR_l or SR_h: (B, 3, F, H, W) to the same frames, larger."""
        model = self.load(name)

        def sample(part: slice) -> Tensor:
            with self._autocast():
                large: Tensor = model.sample(
                    video[part], _noise(seed, ids[part], name), self.sampling.get(name), _tell(on_step, name)
                )
            return large

        return self._batched(sample, len(ids))

    def load(self, name: Part) -> Any:
        """Load one part; it leaves memory with the caller's last reference.

        Raises:
            CheckpointError: It is missing, damaged, or another model.
        """
        return load_model(self._path(name), name).to(self.device)

    def _texts(self, model: Any, prompts: Sequence[str] | None, total: int) -> Callable[[slice], TextPair | None]:
        """Return what a network with text reads of a part of the batch; without prompts that is the empty text.

        All is encoded at once, so that the CLIP leaves memory before the network works.
        """
        if model.config.network.text_dim is None:
            return lambda part: None
        clip = load_clip(str(self._path("clip")))
        text, null = clip.encode_text(list(prompts or [""] * total)), clip.encode_text([""])
        return lambda part: (text[part], null)

    def _path(self, name: str) -> str | Path:
        if name not in self.paths:
            raise CheckpointError(f"no {name} among the models; train it, or name its folder with --{name}")
        return self.paths[name]

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _batched(self, sample: Callable[[slice], Tensor], total: int) -> Tensor:
        starts = range(0, total, self.batch_size)
        return torch.cat([sample(slice(start, start + self.batch_size)).float().cpu() for start in starts])


def _find(folder: Path, name: str) -> Path | None:
    for candidate in FOLDERS.get(name, (name,)):
        path = folder / candidate
        if path.is_dir() and _is_model(path):
            return path
    return None


def _is_model(path: Path) -> bool:
    try:
        return resolve_model(path).kind != "pipeline"
    except CheckpointError:
        return False


def _noise(seed: int, ids: Sequence[str], part: str) -> NoiseStream:
    return NoiseStream.keyed([("generate", seed, one, part) for one in ids])


def _tell(on_step: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if on_step is None else partial(on_step, name)


def _check(prompts: Sequence[str], fps: float) -> None:
    for i, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ConfigError(f"prompt {i + 1} is empty; describe what the video should show")
        if fault := fault_of(prompt):
            raise ConfigError(f"prompt {i + 1} {fault}; remove it")
    if not 1 <= fps <= 30:
        raise ConfigError(f"fps {fps} is outside 1 to 30, the rates the networks know")
