"""The small CLIP that is trained where no pretrained one can be had (Radford et al. 2021)."""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mav.networks.small_clip import SmallClip, SmallClipConfig


@dataclass(frozen=True)
class ClipConfig:
    """A small CLIP.

    Args:
        network: The two towers.
        max_logit_scale: Upper bound of the learned inverse temperature.
    """

    network: SmallClipConfig = field(default_factory=SmallClipConfig)
    max_logit_scale: float = 100.0


class Clip(nn.Module):
    """Two towers and their contrastive objective."""

    name = "clip"
    config_class = ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.network = SmallClip(config.network)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each pair, (B,), under "loss", and its two halves.

        Args:
            batch: "image" (B, 3, H, W) in [-1, 1] and "tokens" (B, 77), the captions' byte-pair ids.
        """
        images = F.normalize(self.network.image(batch["image"]).float(), dim=-1)
        texts = F.normalize(self.network.text(batch["tokens"])[0].float(), dim=-1)
        scale = self.network.logit_scale.exp().clamp(max=self.config.max_logit_scale)
        return contrastive_loss(scale * images @ texts.T, batch["tokens"])


def contrastive_loss(logits: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Return CLIP's symmetric cross-entropy per pair, in which equal captions match each other's images.

    Args:
        logits: (B, B), images by texts.
        tokens: (B, 77); few distinct captions repeat within a batch, and would otherwise count as mistakes.
    """
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    to_text = F.cross_entropy(logits, target, reduction="none")
    to_image = F.cross_entropy(logits.T, target, reduction="none")
    return {"loss": (to_text + to_image) / 2, "image_to_text": to_text, "text_to_image": to_image}
