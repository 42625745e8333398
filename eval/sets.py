"""The sets of videos that the moving shapes benchmark is made of, each a row per video, stored in chunks.

Video number i of every set has the caption ``HELD_OUT[i % 16]``; real videos with that number show the same look.
Legend: B videos, K given frames, D embedding width.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.controls import control_videos
from eval.looks import Looks
from eval.oracle import judge
from eval.store import Row, Rows, Store
from eval.systems import MakeAVideoSystem, SuperResolutionPart
from lightning_mav.data.scenes import CAPTIONS, HELD_OUT, Split, draw_scene
from lightning_mav.data.transforms import downsample, to_network_range
from lightning_mav.media import write_sheet, write_video
from lightning_mav.pipeline import PARTS

DECODER_FPS = 16
SLOW_FPS = 6  # of the decoder's frames in final videos
FINAL_FPS = 30
FRAMES = 16
SKIP = 5
FINAL_FRAMES = (FRAMES - 1) * SKIP + 1
CASCADE = ("clip", *PARTS)
STILL_SIZE = 64  # pixels
STILLS = 16  # per caption


def prompts_of(ids: Sequence[int]) -> list[str]:
    """Return the captions of videos by number."""
    return [HELD_OUT[i % len(HELD_OUT)] for i in ids]


@dataclass(frozen=True)
class Sets:
    """The sets of one system's videos and of real ones.

    Attributes:
        system: What is judged.
        store: Where rows are kept.
        seed: Of everything drawn.
        num_prompts: Videos of each generated set.
        num_references: Real videos given to a stage.
        gallery: Videos of each set whose pictures are kept.
        looks: What networks see in videos at the decoder's rate, for distances between sets; None leaves that out.
        kept: The sets with pictures, filled in as they are made.
    """

    system: MakeAVideoSystem
    store: Store
    seed: int
    num_prompts: int
    num_references: int
    gallery: int
    looks: Looks | None = None
    kept: dict[str, Rows] = field(default_factory=dict)

    # judged by the oracle, and looked at by networks where sets are compared as a whole

    def real(self, kind: str, fps: float, frames: int, size: int, num: int | None = None, other: int = 0) -> Rows:
        """Return verdicts on real videos, or on a spoilt kind of them; ``other`` draws videos that share nothing."""
        seed = self.seed + other

        def make(ids: Sequence[int]) -> Tensor:
            return control_videos(kind, ids, fps, frames, size, seed)

        return self._judged(f"{kind}_{fps}fps_{size}px", [frames, seed], fps, make, num)

    def decoder(self, fps: float) -> Rows:
        """Return verdicts on what prior and decoder make."""

        def make(ids: Sequence[int]) -> Tensor:
            return self.system.run(prompts_of(ids), fps, FRAMES, self.seed, "decoder", ids)

        return self._judged(f"decoder_{fps}fps", self.system.fingerprint("clip", "prior", "decoder"), fps, make)

    def control(self) -> Rows:
        """Return verdicts on what the inflated image decoder makes, which has not seen a video."""

        def make(ids: Sequence[int]) -> Tensor:
            untrained = self.system.control(self.store.folder / "untrained_decoder")
            return untrained.run(prompts_of(ids), DECODER_FPS, FRAMES, self.seed, "decoder", ids)

        key = self.system.fingerprint("clip", "prior", "decoder", "decoder_image")
        return self._judged("control", key, DECODER_FPS, make)

    def final(self) -> Rows:
        """Return verdicts on what the whole cascade makes."""

        def make(ids: Sequence[int]) -> Tensor:
            return self.system.run(prompts_of(ids), SLOW_FPS, FRAMES, self.seed, "sr_spatial", ids)

        return self._judged("final", self.system.fingerprint(*CASCADE), FINAL_FPS, make)

    def cascade(self) -> Rows:
        """Keep pictures of the first prompt after each stage."""

        def work(ids: Sequence[int], folder: Path) -> list[Row]:
            for name in PARTS[1:]:
                fps = SLOW_FPS if name == "decoder" else FINAL_FPS
                videos = self.system.run(prompts_of(ids), SLOW_FPS, FRAMES, self.seed, name, ids)
                write_video(videos[0], folder / f"{name}.webp", fps)
                write_sheet([videos[0]], folder / f"{name}.png", gap=0)
            return [{"caption": prompt} for prompt in prompts_of(ids)]

        rows = self.store.rows("cascade", [self.system.fingerprint(*CASCADE), self.seed], 1, work)
        self.kept["cascade"] = rows
        return rows

    def looked_at(self, kind: str, other: int = 0) -> Rows:
        """Return verdicts and looks on a kind of real videos at the decoder's rate and size."""
        return self.real(kind, DECODER_FPS, FRAMES, self.system.frame_size(), other=other)

    def _judged(
        self, name: str, key: object, fps: float, make: Callable[[Sequence[int]], Tensor], num: int | None = None
    ) -> Rows:
        def work(ids: Sequence[int], folder: Path) -> list[Row]:
            videos = make(ids).cpu()
            for i, video in zip(ids, videos, strict=True):
                if i < self.gallery:
                    write_video(video, folder / f"{i:06d}.webp", fps)
            verdicts = [asdict(judgement) for judgement in judge(videos, fps, prompts_of(ids))]
            if self.looks is None or fps != DECODER_FPS:
                return verdicts
            return [verdict | look for verdict, look in zip(verdicts, self.looks(videos, ids), strict=True)]

        seen = None if self.looks is None else self.looks.fingerprint
        rows = self.store.rows(name, [key, self.seed, fps, self.gallery, seen], num or self.num_prompts, work)
        self.kept[name] = rows
        return rows

    # measured against the truth

    def prior(self) -> Rows:
        """Return, per prompt, how near the prior and the text come to stills that show it, and what they retrieve."""

        def work(ids: Sequence[int], _: Path) -> list[Row]:
            prompts = prompts_of(ids)
            drawn = F.normalize(self.system.image_embeddings(prompts, ids, self.seed), dim=-1)
            text = F.normalize(self.system.text_embeddings(prompts), dim=-1)
            wanted = torch.tensor([CAPTIONS.index(prompt) for prompt in prompts])
            truth = self._stills[wanted]
            nearest = (drawn @ F.normalize(self._stills.mean(1), dim=-1).T).argmax(1)
            cosine, text_cosine = (torch.einsum("bd,bkd->b", one, truth) / STILLS for one in (drawn, text))
            return _rows({"cosine": cosine, "text_cosine": text_cosine, "retrieved": nearest == wanted})

        key = [self.system.fingerprint("clip", "prior"), self.seed]
        return self.store.rows("prior", key, self.num_prompts, work)

    @cached_property
    def _stills(self) -> Tensor:
        """Unit embeddings (96 captions, STILLS, D) of real stills."""
        embeddings = self.system.embed_images(_render_stills(self.seed))
        return F.normalize(embeddings, dim=-1).view(len(CAPTIONS), STILLS, -1)

    def interpolation(self, fps: float, frame_skip: int) -> Rows:
        """Return, per real video, the PSNR of missing frames beside linear blending's, and the error of given ones."""
        length = (FRAMES - 1) * frame_skip + 1

        def work(ids: Sequence[int], _: Path) -> list[Row]:
            truth = control_videos("real", ids, fps, length, self.system.frame_size(), self.seed)
            given = truth[:, :, ::frame_skip]
            filled = self.system.interpolate(given, frame_skip, fps, ids, self.seed)
            blended = F.interpolate(given, truth.shape[2:], mode="trilinear", align_corners=True)
            missing = torch.arange(length) % frame_skip != 0
            columns = {
                "psnr": psnr(filled[:, :, missing], truth[:, :, missing]),
                "baseline_psnr": psnr(blended[:, :, missing], truth[:, :, missing]),
                "given_error": (filled[:, :, ::frame_skip] - given).abs().flatten(1).amax(1),
                "length": torch.full((len(ids),), filled.shape[2]),
            }
            return [
                dict(zip(columns, row, strict=True))
                for row in zip(*(c.tolist() for c in columns.values()), strict=True)
            ]

        key = self.system.fingerprint("clip", "interpolation")
        return self._referenced(f"interpolation_{fps}fps_skip{frame_skip}", key, work)

    def enlarged(self, stage: SuperResolutionPart) -> Rows:
        """Return, per real video, the PSNR of its enlargement beside the bicubic one's."""

        def work(ids: Sequence[int], _: Path) -> list[Row]:
            size = self.system.frame_size() * (self.system.scale("sr_spacetime") if stage == "sr_spatial" else 1)
            truth = control_videos("real", ids, FINAL_FPS, FRAMES, size * self.system.scale(stage), self.seed)
            small = downsample(truth, size)
            large, plain = self.system.enlarge(stage, small, ids, self.seed), self.system.enlarge_plainly(stage, small)
            return _rows({"psnr": psnr(large, truth), "baseline_psnr": psnr(plain, truth)})

        return self._referenced(stage, self.system.fingerprint(stage), work)

    def _referenced(self, name: str, key: object, work: Callable[[Sequence[int], Path], list[Row]]) -> Rows:
        return self.store.rows(name, [key, self.seed], self.num_references, work)


def _rows(columns: dict[str, Tensor]) -> list[Row]:
    """Turn named columns (B,) into one dictionary per video."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def psnr(videos: Tensor, truth: Tensor) -> Tensor:
    """Return (B,) peak signal-to-noise ratios in dB of videos (B, 3, F, H, W) in [-1, 1]."""
    error = (videos.cpu() - truth).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-10))


def _render_stills(seed: int) -> Tensor:
    """Return STILLS real stills for each of ``CAPTIONS`` in turn, (96 STILLS, 3, STILL_SIZE, STILL_SIZE) in [-1, 1]."""
    stills: dict[str, list[Tensor]] = {caption: [] for caption in CAPTIONS}
    splits: dict[Split, int] = {"test": len(HELD_OUT), "train": len(CAPTIONS) - len(HELD_OUT)}
    for split, captions in splits.items():
        for index in range(captions * STILLS):
            scene = draw_scene("image", split, seed, index)
            stills[scene.caption].append(to_network_range(scene.render(torch.zeros(1), STILL_SIZE))[:, 0])
    return torch.stack([image for images in stills.values() for image in images])
