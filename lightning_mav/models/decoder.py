"""The decoder D and its video form D^t (paper sections 3.1 to 3.3): CLIP image embedding and fps to frames."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_mav.diffusion.guidance import Condition
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.samplers import OnStep
from lightning_mav.models.base import DiffusionModel, Objective, Sampling, device_of, shuffle, unshuffle
from lightning_mav.networks.encoders import TEXT, TextPair
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.unet import UNet, UNetConfig


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder; with ``network.temporal`` it makes videos, without it images.

    Args:
        network: The U-Net.
        objective: What it predicts and how it is trained.
        sampling: How samples are drawn.
        unshuffle: Pixels folded into channels at the model's edge, per side; small networks learn faster with 2.
        condition_dropout: Share of training samples that lose their image embedding, for guidance.
        image_size: Height and width in pixels.
    """

    network: UNetConfig = field(default_factory=UNetConfig)
    objective: Objective = field(default_factory=Objective)
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=250, sampler="ddpm", guidance_scale=8.0))
    unshuffle: int = 1
    condition_dropout: float = 0.1
    image_size: int = 64

    def inflated(self, temporal: TemporalConfig | None = None) -> "DecoderConfig":
        """Return the configuration of the video decoder that starts from this image decoder (section 3.2)."""
        return replace(self, network=replace(self.network, temporal=temporal or TemporalConfig(), fps=True))


class Decoder(DiffusionModel):
    """D or D^t: denoises frames (B, 3, F, H, W) given a CLIP image embedding and, for videos, the frame rate."""

    name = "decoder"
    config_class = DecoderConfig
    extra_pixel_channels = 0
    shared_noise = False

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config.objective, config.sampling, clip_x0=1.0)
        self.config = config
        pixels = config.unshuffle**2
        self.network = UNet(
            config.network,
            in_channels=3 * pixels,
            out_channels=3 * pixels * (2 if config.objective.learns_variance else 1),
            extra_channels=self.extra_pixel_channels * pixels,
        )

    @property
    def makes_videos(self) -> bool:
        """Whether frames are mixed."""
        return self.config.network.temporal is not None

    def loss(self, batch: Condition, noise: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        """Return the loss of each sample, (B,), under "loss", and its parts.

        Args:
            batch: "video" (B, 3, F, H, W) in [-1, 1], "image_embedding" (B, D), "dropped" (B,) bool, for videos
                "fps" (B,), and for networks with text what ``TextEncoding.as_condition`` gives.
            noise: Like the video.
            timestep: (B,) in 0..T-1.
        """
        return self.denoising_loss(self.call, batch["video"], noise, timestep, self._condition(batch))

    def sample(
        self,
        image_embedding: Tensor,
        noise: NoiseStream,
        fps: Tensor | None = None,
        num_frames: int = 1,
        sampling: Sampling | None = None,
        on_step: OnStep | None = None,
        text: TextPair | None = None,
    ) -> Tensor:
        """Make frames.

        Args:
            image_embedding: (B, D) CLIP image embedding.
            noise: One source of noise per sample.
            fps: (B,) frames per second of the video to make; None for images.
            num_frames: F.
            sampling: How to sample; the model's own settings when None.
            on_step: Told (steps done, steps in all).
            text: The B encoded texts and the encoded empty one; only networks with text read them.

        Returns:
            (B, 3, num_frames, image_size, image_size) in [-1, 1].
        """
        size, device = self.config.image_size, device_of(self)
        dropped = torch.zeros(len(image_embedding), dtype=torch.bool, device=device)
        condition = {"image_embedding": image_embedding.to(device), "image_dropped": dropped}
        if fps is not None:
            condition["fps"] = fps.to(device)
        return self._sample(condition, noise, (3, num_frames, size, size), sampling, on_step, text).clamp(-1, 1)

    @torch.no_grad()
    def _sample(
        self,
        condition: Condition,
        noise: NoiseStream,
        shape: tuple[int, ...],
        sampling: Sampling | None,
        on_step: OnStep | None,
        text: TextPair | None,
    ) -> Tensor:
        x_T = noise.draw(shape, self.shared_noise).to(device_of(self))
        null = condition | {"image_dropped": torch.ones_like(condition["image_dropped"])}
        if text is not None and self.config.network.text_dim:
            given, empty = (one.to(x_T.device).expand(len(x_T)).as_condition() for one in text)
            condition, null = condition | given, null | empty
        return self.denoise(self.call, x_T, condition, null, noise, sampling, on_step, self.shared_noise)

    def _condition(self, batch: Condition) -> Condition:
        condition = {"image_embedding": batch["image_embedding"], "image_dropped": batch["dropped"]}
        if self.config.network.text_dim:
            condition |= {name: batch[name] for name in TEXT}
        return condition | ({"fps": batch["fps"]} if "fps" in batch else {})

    def call(self, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the network on pixels (B, 3, F, H, W); learned variances come after the 3 colours."""
        factor = self.config.unshuffle
        folded = {k: unshuffle(v, factor) if k == "extra" else v for k, v in condition.items()}
        output: Tensor = self.network(unshuffle(x_t, factor), timestep, **folded)
        if self.objective.learns_variance:
            return torch.cat([shuffle(half, factor) for half in output.chunk(2, 1)], 1)
        return shuffle(output, factor)
