"""Training of the interpolation network, from the video decoder's weights, on unlabelled video (paper section 3.3)."""

from typing import Any

import torch
from torch import Tensor

from lightning_mav.data.batches import Batch
from lightning_mav.data.fps import FpsDistribution
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.errors import ConfigError
from lightning_mav.models.interpolation import Interpolation, InterpolationConfig, MaskDistribution, blended, frame_mask
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.seeding import generator
from lightning_mav.stages.base import Stage
from lightning_mav.stages.decoder import DecoderDataModule, check_image_size

JUDGED_SKIP = 5  # the paper's


class InterpolationStage(Stage):
    """F: learns to fill in missing frames, for all the tasks that its masks describe.

    Args:
        config: The video decoder's configuration; the 4 further input channels are added to it.
        masks: Which frames training gives.
        options: What every stage has: lr, init_from, trainable and so on.
    """

    model: Interpolation
    takes_frames = True

    def __init__(
        self, config: InterpolationConfig, masks: MaskDistribution = MaskDistribution(), **options: Any
    ) -> None:
        super().__init__(Interpolation(config), **options)
        self.masks = masks

    @property
    def embedding_dim(self) -> int | None:
        """Width of the CLIP embeddings that the network takes."""
        return self.model.config.network.image_embedding_dim

    def check_size(self, data: Any) -> None:
        """Require the size that the model is configured to make."""
        check_image_size(data, self.model.config)

    def condition(self, batch: Batch) -> Batch:
        """Add the mask of given frames, a function of (seed, index, position); judging always masks at one skip."""
        frames = batch["video"].shape[2]
        if not self.training:
            masks = [frame_mask("regular", frames, JUDGED_SKIP)] * len(batch["index"])
        else:
            masks = [self.masks.draw(frames, generator("mask", *key)) for key in self.keys(batch)]
        return batch | {"frame_mask": torch.stack(masks).to(self.device)}

    def samples(self, batch: Batch, noise: NoiseStream) -> Tensor:
        """Return the batch's videos with their missing frames filled in."""
        text, given = TextEncoding.of(batch), (batch["video"], batch["frame_mask"])
        return self.model.fill(*given, batch["image_embedding"], batch["fps"], noise, text=(text, text))

    def quality(self, batch: Batch) -> dict[str, Tensor]:
        """Return the PSNR of missing frames in dB, beside that of linear blending."""
        video, mask = batch["video"], batch["frame_mask"][0]
        filled = self.samples(batch, self.noise(batch))
        return {
            "psnr": psnr(filled[:, :, ~mask], video[:, :, ~mask]),
            "psnr_linear": psnr(blended(video, batch["frame_mask"])[:, :, ~mask], video[:, :, ~mask]),
        }


class InterpolationDataModule(DecoderDataModule):
    """Unlabelled videos at drawn frame rates, with the CLIP embedding of one frame.

    Args:
        clip: The frozen CLIP, see ``checkpoint.clip.load_clip``.
        fps: A fixed frame rate, or the distribution to draw it from; without a curriculum by default.
        options: What the decoder's data module has.
    """

    def __init__(
        self, clip: str, fps: FpsDistribution | float = FpsDistribution(beta_end=(1, 1)), **options: Any
    ) -> None:
        super().__init__(clip, fps=fps, **options)
        for frames in (self.frames, *(self.buckets.lengths if self.buckets else ())):
            if frames <= JUDGED_SKIP or (frames - 1) % JUDGED_SKIP:
                raise ConfigError(
                    f"data.frames {frames}: interpolation is judged on every {JUDGED_SKIP}th frame given; "
                    f"choose a multiple of {JUDGED_SKIP}, plus 1, for example 16"
                )


def psnr(video: Tensor, reference: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of videos in [-1, 1], averaged over the batch."""
    error = (video.float() - reference.float()).square().flatten(1).mean(1)
    return (10 * torch.log10(4 / error.clamp(min=1e-10))).mean()
