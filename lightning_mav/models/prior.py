"""The prior P: from a text to the CLIP embedding of an image of it (paper section 3.1; unCLIP, section 2.2)."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mav.diffusion.guidance import Condition
from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.diffusion.samplers import OnStep
from lightning_mav.models.base import DiffusionModel, Objective, Sampling, device_of
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.networks.prior_transformer import PriorTransformer, PriorTransformerConfig

EmbedSpace = Literal["raw", "standardised", "l2_scaled"]


@dataclass(frozen=True)
class PriorConfig:
    """A prior.

    Args:
        network: The transformer.
        objective: How it is trained; the network predicts the clean embedding.
        sampling: How embeddings are drawn.
        embed_space: Where diffusion happens: ``raw`` CLIP embeddings, ``standardised`` by the data's mean and deviation
            (Karlo), or ``l2_scaled`` to the length sqrt(D), so that their variance is 1 whatever the CLIP (unCLIP).
        clip_x0: Bound on each coordinate of a predicted embedding, in that space; None for no bound.
        num_candidates: Embeddings drawn per text; the one that matches the text best is kept.
        condition_dropout: Share of training samples that lose their text, for guidance.
    """

    network: PriorTransformerConfig = field(default_factory=PriorTransformerConfig)
    objective: Objective = field(default_factory=lambda: Objective(parameterisation="x0", variance="fixed_small"))
    sampling: Sampling = field(default_factory=lambda: Sampling(sampler="ddpm", steps=64, guidance_scale=4.0))
    embed_space: EmbedSpace = "standardised"
    clip_x0: float | None = 10.0
    num_candidates: int = 2
    condition_dropout: float = 0.1


class Prior(DiffusionModel):
    """P: denoises a CLIP image embedding (B, D), given the text. Embeddings outside this class are CLIP's own, raw."""

    name = "prior"
    config_class = PriorConfig
    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__(config.objective, config.sampling, config.clip_x0)
        self.config = config
        self.network = PriorTransformer(config.network)
        self.register_buffer("embedding_mean", torch.zeros(config.network.embedding_dim))
        self.register_buffer("embedding_std", torch.ones(config.network.embedding_dim))

    def loss(self, batch: Condition, noise: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        """Return the loss of each sample, (B,), under "loss", and its parts.

        Args:
            batch: "image_embedding" (B, D), "text_embedding" (B, D), "text_states" (B, 77, S), "text_mask" (B, 77);
                where the text was dropped, for guidance, they hold the encoded empty text.
            noise: (B, D), standard normal.
            timestep: (B,) in 0..T-1.
        """
        condition = {name: batch[name] for name in ("text_embedding", "text_states", "text_mask")}
        x0 = self.to_space(batch["image_embedding"])
        return self.denoising_loss(self.call, x0[:, None], noise[:, None], timestep, condition)

    def sample(
        self,
        text: TextEncoding,
        null: TextEncoding,
        noise: NoiseStream,
        sampling: Sampling | None = None,
        num_candidates: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw image embeddings that match texts.

        Args:
            text: The B encoded texts.
            null: The encoded empty text, of batch 1.
            noise: One source of noise per text.
            sampling: How to sample; the model's own settings when None.
            num_candidates: Embeddings to choose from; the model's own setting when None.
            on_step: Told (steps done, steps in all).

        Returns:
            (B, D) raw CLIP image embeddings.
        """
        device = device_of(self)
        condition, null_condition = (encoding.to(device).as_condition() for encoding in (text, null))
        x_T = noise.draw((num_candidates or self.config.num_candidates, len(self.embedding_mean))).to(device)
        drawn = self.denoise(self.call, x_T, condition, null_condition, noise, sampling, on_step)
        return best_match(self.from_space(drawn), condition["text_embedding"])

    def call(self, x_t: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the network on the K candidates (B, K, D) of each sample, without the padding that all texts share."""
        candidates = x_t.shape[1]
        longest = int(condition["text_mask"].sum(1).max())
        output: Tensor = self.network(
            x_t.flatten(0, 1),
            timestep.repeat_interleave(candidates),
            condition["text_embedding"].repeat_interleave(candidates, 0),
            condition["text_states"][:, :longest].repeat_interleave(candidates, 0),
            condition["text_mask"][:, :longest].repeat_interleave(candidates, 0),
        )
        return output.view_as(x_t)

    def to_space(self, embedding: Tensor) -> Tensor:
        """Bring raw embeddings (..., D) into the space where diffusion happens."""
        if self.config.embed_space == "standardised":
            return (embedding - self.embedding_mean) / self.embedding_std
        if self.config.embed_space == "l2_scaled":
            return F.normalize(embedding, dim=-1) * math.sqrt(embedding.shape[-1])
        return embedding

    def from_space(self, x: Tensor) -> Tensor:
        """Undo ``to_space``; lengths that ``l2_scaled`` lost become the data's root mean square."""
        if self.config.embed_space == "standardised":
            return x * self.embedding_std + self.embedding_mean
        if self.config.embed_space == "l2_scaled":
            length: Tensor = (self.embedding_mean.square() + self.embedding_std.square()).sum().sqrt()
            return F.normalize(x, dim=-1) * length
        return x


def best_match(candidates: Tensor, text_embedding: Tensor) -> Tensor:
    """Keep of (B, K, D) embeddings the one whose direction has the largest dot product with the text's (B, D)."""
    scores = torch.einsum("bkd,bd->bk", F.normalize(candidates, dim=-1), text_embedding.to(candidates))
    return candidates[torch.arange(len(candidates), device=candidates.device), scores.argmax(1)]
