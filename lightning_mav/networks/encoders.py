"""Frozen CLIPs behind one small protocol: OpenCLIP, transformers, and our own small one (``models/clip.py``).

An encoder is not an ``nn.Module``, so that it can never enter the state dict, the parameters or the EMA of a stage.

Shapes: B batch, D width of the joint embedding, S width of the text encoder's per-token states.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from lightning_mav.networks.small_clip import CONTEXT, SmallClip, resize, text_mask

logger = logging.getLogger(__name__)
TEXT = ("text_embedding", "text_states", "text_mask")
_cut: set[int] = set()  # hashes of the captions that this process has cut


@dataclass(frozen=True)
class TextEncoding:
    """What a CLIP says about a batch of texts.

    Attributes:
        embedding: (B, D) projected and not normalised.
        states: (B, 77, S) states after the text tower's last norm.
        mask: (B, 77) bool, True up to and including the end-of-text token.
    """

    embedding: Tensor
    states: Tensor
    mask: Tensor

    def as_condition(self) -> dict[str, Tensor]:
        """Return the tensors under the names that models take: text_embedding, text_states, text_mask."""
        return dict(zip(TEXT, (self.embedding, self.states, self.mask), strict=True))

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> "TextEncoding":
        """Undo ``as_condition``."""
        return cls(*(batch[name] for name in TEXT))

    def to(self, device: torch.device) -> "TextEncoding":
        """Return it on a device; nothing is copied where it is there already."""
        return self._each(lambda value: value.to(device))

    def expand(self, batch: int) -> "TextEncoding":
        """Give each of ``batch`` samples its text, or all of them the only one; nothing is copied."""
        return self._each(lambda value: value.expand(batch, *value.shape[1:]))

    def repeat(self, times: int) -> "TextEncoding":
        """Return the batch ``times`` times over."""
        return self._each(lambda value: value.repeat(times, *[1] * (value.ndim - 1)))

    def __getitem__(self, samples: slice) -> "TextEncoding":
        """Return some of the batch."""
        return self._each(lambda value: value[samples])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TextEncoding":
        return TextEncoding(change(self.embedding), change(self.states), change(self.mask))


TextPair = tuple[TextEncoding, TextEncoding]
"""Texts, and the empty text that stands for none."""


class ClipEncoder(Protocol):
    """A frozen pair of image and text encoder."""

    @property
    def embedding_dim(self) -> int:
        """Width D of the joint embedding."""
        ...

    @property
    def states_dim(self) -> int:
        """Width S of the per-token states."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of weights and preprocessing, for caches and result files."""
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed square images (B, 3, H, W) in [-1, 1] as (B, D), not normalised; the encoder follows their device."""
        ...

    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """Encode texts; the empty text is allowed, it is the null condition of the prior and the decoder."""
        ...


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer(context_length=CONTEXT)


def tokenize(texts: Sequence[str]) -> Tensor:
    """Return CLIP's byte-pair ids (B, 77), zero after the end-of-text token; a text that is cut is reported."""
    tokenizer = _tokenizer()
    tokens: Tensor = tokenizer(list(texts))
    for text in (text for text, ids in zip(texts, tokens, strict=True) if ids[-1] != 0):
        if len(tokenizer.encode(text)) > CONTEXT - 2:
            _report_cut(text)
    return tokens


def _report_cut(text: str) -> None:
    """Name the first few captions that are cut, and how many there are as they grow tenfold."""
    if (seen := hash(text)) not in _cut:
        _cut.add(seen)
        num = len(_cut)
        if num <= 5 or str(num).strip("0") == "1":
            logger.warning("caption cut to %d tokens (%d captions so far): %s", CONTEXT, num, text)


@dataclass(frozen=True)
class Preprocessing:
    """What a CLIP expects of its input.

    Attributes:
        size: side in pixels.
        mean: of each colour, in [0, 1].
        std: of each colour, in [0, 1].
    """

    size: int
    mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD

    def __call__(self, images: Tensor) -> Tensor:
        """Resize and normalise images (B, 3, H, W) in [-1, 1]."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((resize(images, self.size) + 1) / 2 - mean) / std


class FrozenClip:
    """What the encoders share; a subclass runs its network's two towers.

    Args:
        network: Both towers; evaluated, never trained.
        preprocessing: What it does to images, part of the fingerprint.
        embedding_dim: Width D of the joint embedding.
        states_dim: Width S of the per-token states.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, embedding_dim: int, states_dim: int) -> None:
        self.network: Any = network.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.embedding_dim, self.states_dim = embedding_dim, states_dim

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of weights and preprocessing."""
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """See :class:`ClipEncoder`."""
        if images.device != self._device:
            self.network.to(images.device)
        return self._image(self.preprocessing(images.float()))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextEncoding:
        """See :class:`ClipEncoder`."""
        tokens = tokenize(texts).to(self._device)
        embedding, states = self._text(tokens)
        return TextEncoding(embedding, states, text_mask(tokens))

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.network.parameters()).device
        return device

    def _image(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def _text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class SmallClipEncoder(FrozenClip):
    """Our own small CLIP."""

    def __init__(self, network: SmallClip) -> None:
        config = network.config
        plain = Preprocessing(config.image_size, mean=(0.5,) * 3, std=(0.5,) * 3)
        super().__init__(network, plain, config.embedding_dim, config.text_width)

    def _image(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.network.image(images)
        return embedding

    def _text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        embedding, states = self.network.text(tokens)
        return embedding, states


class OpenClipEncoder(FrozenClip):
    """A CLIP of the open_clip package."""

    def __init__(self, network: Any) -> None:
        config = open_clip.get_model_preprocess_cfg(network)
        side = config["size"] if isinstance(config["size"], int) else config["size"][0]
        preprocessing = Preprocessing(side, tuple(config["mean"]), tuple(config["std"]))
        super().__init__(network, preprocessing, *network.text_projection.shape[::-1])

    def _image(self, images: Tensor) -> Tensor:
        embedding: Tensor = self.network.encode_image(images)
        return embedding

    def _text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        out = self.network.forward_intermediates(
            text=tokens, text_indices=1, normalize=False, normalize_intermediates=True
        )
        return out["text_features"], out["text_intermediates"][0]


class TransformersEncoder(FrozenClip):
    """A ``CLIPModel`` of the transformers package."""

    def __init__(self, network: Any, preprocessing: Preprocessing) -> None:
        config = network.config
        super().__init__(network, preprocessing, config.projection_dim, config.text_config.hidden_size)

    def _image(self, images: Tensor) -> Tensor:
        pooled = self.network.vision_model(pixel_values=images).pooler_output
        embedding: Tensor = self.network.visual_projection(pooled)
        return embedding

    def _text(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        out = self.network.text_model(input_ids=tokens)
        return self.network.text_projection(out.pooler_output), out.last_hidden_state
