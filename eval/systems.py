"""What can be judged. A system is anything with ``generate(prompts, fps, frames, seed) -> videos``."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from eval.prompts import Prompt
from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.checkpoint.models import hand_over, load_model, save_model
from lightning_mav.checkpoint.resolve import resolve_model
from lightning_mav.errors import CheckpointError
from lightning_mav.models.decoder import Decoder
from lightning_mav.models.super_resolution import upsample
from lightning_mav.networks.encoders import ClipEncoder
from lightning_mav.pipeline import PARTS, MakeAVideo, Part

OWN_FPS = 30.0
FRAME_SKIP = 5  # of the interpolation network
DECODED = 16  # frames the decoder was trained on; it makes no fewer
SuperResolutionPart = Literal["sr_spacetime", "sr_spatial"]


class System(Protocol):
    """A text-to-video system."""

    def generate(self, prompts: Sequence[Prompt], fps: float | None, frames: int, seed: int) -> Iterable[Tensor]:
        """Return a video (3, frames, H, W) in [-1, 1] for each prompt; noise depends on (seed, id of the prompt) alone.

        ``fps`` None leaves the frame rate to the system.
        """
        ...

    def fingerprint(self) -> list[Any]:
        """Return plain values that change whenever the videos would."""
        ...


class MakeAVideoSystem:
    """A pipeline folder of this project, as a whole and stage by stage.

    Noise is a function of (seed, id of the prompt), so results depend neither on batches nor on their order.

    Args:
        model: The pipeline folder.
        parts: Folders that replace single models.
        image_decoder: The decoder before it saw videos, from which the control is made; relative to ``model``.
        until: The last part that ``generate`` runs.
        options: Further arguments of ``MakeAVideo``, such as ``precision``.
    """

    def __init__(
        self,
        model: str,
        parts: dict[str, str] | None = None,
        image_decoder: str = "decoder_image",
        until: Part = "sr_spatial",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.image_decoder, self.options = Path(model), Path(model) / image_decoder, options or {}
        self.until: Part = until
        found = resolve_model(self.folder)
        if found.kind != "pipeline":
            raise CheckpointError(f"{model}: is one model; system.model wants the folder of prior, decoder and so on")
        self.pipeline = MakeAVideo.from_pretrained(model, parts, **self.options)

    def generate(self, prompts: Sequence[Prompt], fps: float | None, frames: int, seed: int) -> Tensor:
        """Return videos (B, 3, frames, H, W) in [-1, 1]: the first frames of the decoder's length, or more if asked."""
        skip = FRAME_SKIP if self.until in PARTS[2:] else 1
        decoded = max(DECODED, math.ceil((frames - 1) / skip) + 1)
        videos = self.run(
            [p.text for p in prompts], (fps or OWN_FPS) / skip, decoded, seed, self.until, [p.id for p in prompts]
        )
        return videos[:, :, :frames]

    def run(
        self, prompts: Sequence[str], fps: float, frames: int, seed: int, until: Part, ids: Sequence[int | str]
    ) -> Tensor:
        """Run the cascade.

        Args:
            prompts: B texts.
            fps: Frames per second of the decoder's video.
            frames: Frames of the decoder's video; interpolation makes 5 (frames - 1) + 1 of them.
            seed: Of all noise.
            until: The last part to run.
            ids: B names that, with the seed, decide the noise of each video.

        Returns:
            (B, 3, F, H, W) in [-1, 1].
        """
        return self.pipeline.generate(prompts, fps, frames, FRAME_SKIP, seed=seed, until=until, ids=_names(ids))

    def control(self, folder: Path) -> "MakeAVideoSystem":
        """Return this system with its image decoder inflated but never shown a video, which is saved in ``folder``."""
        image: Any = load_model(self.image_decoder, "decoder")
        video = self.pipeline.load("decoder")
        untrained = Decoder(image.config.inflated(video.config.network.temporal))
        hand_over(self.image_decoder, untrained)
        save_model(untrained, folder)
        sampling = {"sampling": {"decoder": video.sampling}}
        parts = {"decoder": str(folder)}
        return MakeAVideoSystem(str(self.folder), parts, str(self.image_decoder), self.until, self.options | sampling)

    def image_embeddings(self, prompts: Sequence[str], ids: Sequence[int], seed: int) -> Tensor:
        """Return the prior's (B, D) CLIP image embeddings of texts."""
        return self.pipeline.embed(prompts, seed, _names(ids))

    @property
    def clip(self) -> ClipEncoder:
        """The CLIP of the pipeline."""
        return load_clip(str(self._path("clip")))

    def text_embeddings(self, prompts: Sequence[str]) -> Tensor:
        """Return the (B, D) CLIP text embeddings of texts."""
        return self.clip.encode_text(list(prompts)).embedding

    def embed_images(self, images: Tensor) -> Tensor:
        """Return the (B, D) CLIP image embeddings of images (B, 3, H, W)."""
        return self.clip.encode_image(images)

    def interpolate(self, video: Tensor, frame_skip: int, fps: float, ids: Sequence[int], seed: int) -> Tensor:
        """Put ``frame_skip`` - 1 frames between any two of videos (B, 3, K, H, W); the result has ``fps``."""
        embedding = self.embed_images(video[:, :, 0])
        return self.pipeline.interpolate(video, embedding, fps / frame_skip, frame_skip, seed, _names(ids))

    def enlarge(self, stage: SuperResolutionPart, video: Tensor, ids: Sequence[int], seed: int) -> Tensor:
        """Enlarge videos (B, 3, F, h, w) by a super-resolution stage."""
        return self.pipeline.enlarge(stage, video, seed, _names(ids))

    def enlarge_plainly(self, stage: SuperResolutionPart, video: Tensor) -> Tensor:
        """Enlarge videos bicubically, the baseline."""
        return upsample(video, self.scale(stage))

    def frame_size(self) -> int:
        """Return the height and width of the decoder's frames."""
        size: int = self.pipeline.load("decoder").config.image_size
        return size

    def scale(self, stage: SuperResolutionPart) -> int:
        """Return the enlargement of a super-resolution stage."""
        scale: int = self.pipeline.load(stage).config.scale
        return scale

    def interpolation_channels(self) -> int:
        """Return how many channels each pixel has at the interpolation network's input."""
        model = self.pipeline.load("interpolation")
        first = model.network.input_blocks[0][0]
        channels: int = first.weight.shape[1] + first.extra.weight.shape[1]
        return channels // int(model.config.unshuffle) ** 2

    def fingerprint(self, *parts: str) -> list[Any]:
        """Return plain values that change whenever the models of these parts do, by default of all that generate."""
        parts = parts or ("clip", *PARTS[: PARTS.index(self.until) + 1])
        paths = [self.image_decoder if part == "decoder_image" else self._path(part) for part in parts]
        return [*(_mark(path) for path in paths), repr(sorted(self.options.items()))]

    def _path(self, part: str) -> str | Path:
        if part not in self.pipeline.paths:
            raise CheckpointError(f"{self.folder}/{part}: no such model; train it, or leave it out of benchmark.parts")
        return self.pipeline.paths[part]


def _names(ids: Sequence[int | str]) -> list[str]:
    return [str(i) for i in ids]


def _mark(path: str | Path) -> list[Any]:
    """Return path, size and time of the file that holds a model's weights."""
    found = resolve_model(path).path
    weights = found / "model.safetensors" if found.is_dir() else found
    return [str(weights), weights.stat().st_size, weights.stat().st_mtime_ns]
