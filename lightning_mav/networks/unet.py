"""The space-time U-Net of every image and video model: ADM's blocks in ADM's, GLIDE's and Karlo's key layout.

Activations are tokens (B, F, H, W, C) from the first convolution to the last (layout.py); an image is a video of one
frame. With `temporal=None` it is the 2D network; with a TemporalConfig the same weights start as exactly that network,
frame by frame. The numbers in module names (`in_layers.2`) are the published ones and stay inside this file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as fn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_mav.errors import ConfigError
from lightning_mav.networks.conditioning import BlockCondition, embedding_mlp, sinusoid
from lightning_mav.networks.layout import downsample, from_tokens, pointwise, to_tokens, upsample
from lightning_mav.networks.pseudo3d import GroupNorm, PseudoAttention3d, PseudoConv3d, TemporalConfig
from lightning_mav.networks.text_transformer import TextTransformer, TextTransformerConfig


@dataclass(frozen=True)
class UNetConfig:
    """Size and conditions of a U-Net; the defaults are Karlo's decoder, without text.

    Args:
        channels: Width of the first level.
        channel_mult: Width of each level as a multiple of ``channels``.
        num_res_blocks: Residual blocks a level.
        attention_downsamples: Attention at these downsampling factors (1 = full resolution).
        mid_attention: Attention between the two middle blocks.
        head_channels: Width of an attention head.
        num_heads: Heads of every attention, whatever its width; None lets ``head_channels`` decide.
        norm_groups: Groups of every group normalisation.
        scale_shift: The embedding scales and shifts the second normalisation; otherwise it is added before it.
        resblock_updown: Residual blocks change the resolution; otherwise single convolutions do.
        dropout: Dropout inside residual blocks.
        image_embedding_dim: Width of the CLIP image embedding; None for a network without one.
        num_image_tokens: Context tokens made from the image embedding; 0 for none.
        num_classes: Classes of a class-conditional network; None for any other.
        text_dim: Width of a frozen text encoder's states and embedding; None for a network without one.
        text_encoder: A text encoder of the network's own, of width ``context_dim``; None for a network without one.
        context_dim: Width of context tokens; None for a network without context.
        fps: The network knows the frame rate.
        temporal: How frames are mixed; None for an image network.
        checkpointing: Recompute the blocks' activations in the backward pass to save memory.
    """

    channels: int = 320
    channel_mult: tuple[float, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 3
    attention_downsamples: tuple[int, ...] = (2, 4, 8)
    mid_attention: bool = True
    head_channels: int = 64
    num_heads: int | None = None
    norm_groups: int = 32
    scale_shift: bool = True
    resblock_updown: bool = True
    dropout: float = 0.0
    image_embedding_dim: int | None = 768
    num_image_tokens: int = 4
    num_classes: int | None = None
    text_dim: int | None = None
    text_encoder: TextTransformerConfig | None = None
    context_dim: int | None = 1536
    fps: bool = False
    temporal: TemporalConfig | None = None
    checkpointing: bool = False

    @property
    def downsampling(self) -> int:
        """Height and width must be multiples of this."""
        return int(2 ** (len(self.channel_mult) - 1))

    @property
    def embedding_dim(self) -> int:
        """Width of the summed embedding that every block receives."""
        return 4 * self.channels


class ResBlock(nn.Module):
    """ADM's residual block; ``resample`` (up or down) acts after normalisation, before the first convolution."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, resample: str = "none") -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.resample: Callable[[Tensor], Tensor] = {"up": upsample, "down": downsample}.get(resample, nn.Identity())
        width = 2 * out_channels if config.scale_shift else out_channels
        out_conv = PseudoConv3d(out_channels, out_channels, config.temporal)
        nn.init.zeros_(out_conv.weight)
        nn.init.zeros_(out_conv.bias)  # type: ignore[arg-type]
        self.in_layers = nn.ModuleDict(
            {
                "0": GroupNorm(config.norm_groups, in_channels),
                "2": PseudoConv3d(in_channels, out_channels, config.temporal),
            }
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(config.embedding_dim, width)})
        self.out_layers = nn.ModuleDict(
            {"0": GroupNorm(config.norm_groups, out_channels), "2": nn.Dropout(config.dropout), "3": out_conv}
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else _Conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor, condition: BlockCondition) -> Tensor:
        """Map tokens (B, F, H, W, C_in) to (B, F, H', W', C_out)."""
        h = self.resample(fn.silu(self.in_layers["0"](x)))
        h = self.in_layers["2"](h)

        embedding = self.emb_layers["1"](fn.silu(condition.embedding))[:, None, None, None].to(h.dtype)
        if self.scale_shift:
            scale, shift = embedding.chunk(2, -1)
            h = torch.addcmul(shift, self.out_layers["0"](h), scale + 1)
        else:
            h = self.out_layers["0"](h + embedding)
        h = self.out_layers["3"](self.out_layers["2"](fn.silu(h)))

        out: Tensor = self.skip_connection(self.resample(x)) + h
        return out


class Downsample(nn.Module):
    """Half the resolution by a convolution of stride 2: what ADM has where no residual block does it."""

    def __init__(self, channels: int, temporal: TemporalConfig | None) -> None:
        super().__init__()
        self.op = PseudoConv3d(channels, channels, temporal, stride=2)

    def forward(self, x: Tensor, condition: BlockCondition) -> Tensor:
        """Map tokens (B, F, H, W, C) to (B, F, H/2, W/2, C)."""
        y: Tensor = self.op(x)
        return y


class Upsample(nn.Module):
    """Twice the resolution by nearest neighbour and a convolution."""

    def __init__(self, channels: int, temporal: TemporalConfig | None) -> None:
        super().__init__()
        self.conv = PseudoConv3d(channels, channels, temporal)

    def forward(self, x: Tensor, condition: BlockCondition) -> Tensor:
        """Map tokens (B, F, H, W, C) to (B, F, 2H, 2W, C)."""
        y: Tensor = self.conv(upsample(x))
        return y


class _Conv1x1(nn.Conv2d):
    """A linear map of the channels, kept as Conv2d (weight (C_out, C, 1, 1)) for the key layout."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight.flatten(1), self.bias)


class Block(nn.ModuleList):
    """One entry of the U-Net's lists: layers "0", "1", ... in turn."""

    def __init__(self, layers: list[nn.Module], checkpointing: bool) -> None:
        super().__init__(layers)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, condition: BlockCondition) -> Tensor:
        """Map tokens (B, F, H, W, C_in) to (B, F, H', W', C_out)."""
        for layer in self:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, condition, use_reentrant=False)
            else:
                x = layer(x, condition)
        return x


class UNet(nn.Module):
    """The space-time U-Net: ``forward`` predicts from a noisy video and its conditions.

    Args:
        config: Size and conditions.
        in_channels: Channels of the noisy input (and of a low-resolution video concatenated after it).
        out_channels: Channels of the output; twice those of the noisy input when the variance is learned.
        extra_channels: Channels of a further input with a zero kernel of its own (masked frames and their mask).
    """

    def __init__(
        self, config: UNetConfig, in_channels: int = 3, out_channels: int = 3, extra_channels: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self._build_conditioning()
        self._build_blocks(in_channels, out_channels, extra_channels)

    def _build_conditioning(self) -> None:
        c = self.config
        self.time_embed = embedding_mlp(c.channels, c.embedding_dim)
        if c.fps:
            self.fps_embed = embedding_mlp(c.channels, c.embedding_dim, zero=True)
        if c.image_embedding_dim:
            self.cf_param = nn.Parameter(torch.zeros(c.image_embedding_dim))
            self.clip_emb = nn.Linear(c.image_embedding_dim, c.embedding_dim)
        if c.image_embedding_dim and c.context_dim and c.num_image_tokens:
            self.clip_tok_proj = nn.Linear(c.image_embedding_dim, c.num_image_tokens * c.context_dim)
        if c.num_classes:
            self.label_emb = nn.Embedding(c.num_classes, c.embedding_dim)
        if c.text_encoder:
            self.text_encoder = TextTransformer(c.text_encoder, c.embedding_dim)
        if c.text_dim:
            self.text_feat_proj = nn.Linear(c.text_dim, c.embedding_dim)
        if c.text_dim and c.context_dim:
            self.text_seq_proj = nn.Sequential(nn.Linear(c.text_dim, c.context_dim), nn.LayerNorm(c.context_dim))

    def _build_blocks(self, in_channels: int, out_channels: int, extra_channels: int) -> None:
        c = self.config
        widths = [int(c.channels * mult) for mult in c.channel_mult]
        first = PseudoConv3d(in_channels, widths[0], c.temporal, extra_channels)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        skips = [widths[0]]
        width = widths[0]
        for level, out in enumerate(widths):
            for _ in range(c.num_res_blocks):
                self.input_blocks.append(self._block(width, out, level))
                width = out
                skips.append(width)
            if level + 1 < len(widths):
                self.input_blocks.append(Block([self._resample(width, "down")], c.checkpointing))
                skips.append(width)

        attention = [self._attention(width)] if c.mid_attention else []
        self.middle_block = Block([ResBlock(c, width, width), *attention, ResBlock(c, width, width)], c.checkpointing)

        self.output_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for i in range(c.num_res_blocks + 1):
                up = level > 0 and i == c.num_res_blocks
                self.output_blocks.append(self._block(width + skips.pop(), out, level, up))
                width = out

        last = PseudoConv3d(width, out_channels, c.temporal)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.out = nn.ModuleDict({"0": GroupNorm(c.norm_groups, width), "2": last})

    def _block(self, in_channels: int, out_channels: int, level: int, up: bool = False) -> Block:
        layers: list[nn.Module] = [ResBlock(self.config, in_channels, out_channels)]
        if 2**level in self.config.attention_downsamples:
            layers.append(self._attention(out_channels))
        if up:
            layers.append(self._resample(out_channels, "up"))
        return Block(layers, self.config.checkpointing)

    def _resample(self, channels: int, direction: Literal["up", "down"]) -> nn.Module:
        if self.config.resblock_updown:
            return ResBlock(self.config, channels, channels, direction)
        plain = {"up": Upsample, "down": Downsample}[direction]
        return plain(channels, self.config.temporal)

    def _attention(self, channels: int) -> PseudoAttention3d:
        c = self.config
        heads = c.num_heads or channels // c.head_channels
        return PseudoAttention3d(channels, heads, c.norm_groups, c.context_dim, c.temporal)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        *,
        fps: Tensor | None = None,
        image_embedding: Tensor | None = None,
        image_dropped: Tensor | None = None,
        label: Tensor | None = None,
        text_embedding: Tensor | None = None,
        text_states: Tensor | None = None,
        text_tokens: Tensor | None = None,
        text_mask: Tensor | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Predict from a noisy video.

        Args:
            x: (B, in_channels, F, H, W); H and W multiples of ``config.downsampling``.
            timestep: (B,), original index 0..T-1.
            fps: (B,), frames per second; None adds nothing (images).
            image_embedding: (B, image_embedding_dim), CLIP image embedding.
            image_dropped: (B,) bool, True where the learned null embedding takes its place.
            label: (B,), class 0..num_classes-1; None adds nothing.
            text_embedding: (B, text_dim), pooled text embedding of the frozen encoder.
            text_states: (B, M, text_dim), per-token text states of the frozen encoder.
            text_tokens: (B, M), token ids for the network's own text encoder; None is the empty text.
            text_mask: (B, M) bool, True on real tokens.
            extra: (B, extra_channels, F, H, W).

        Returns:
            (B, out_channels, F, H, W), float32.

        Raises:
            ConfigError: If height or width is no multiple of ``config.downsampling``.
        """
        self._check_size(x)
        image = self._image_embedding(image_embedding, image_dropped, len(x))
        own_states, own_embedding = self._encode_text(text_tokens, text_mask, len(x))
        condition = BlockCondition(
            self._embedding(x.dtype, timestep, fps, image, label, text_embedding, own_embedding),
            *self._context(image, own_states if text_states is None else text_states, text_mask),
        )

        # down
        first = self.input_blocks[0][0]  # type: ignore[index]
        h = first(to_tokens(x), None if extra is None else to_tokens(extra))
        skips = [h]
        for block in self.input_blocks[1:]:
            h = block(h, condition)
            skips.append(h)

        # across and up
        h = self.middle_block(h, condition)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], -1), condition)

        h = self.out["2"](fn.silu(self.out["0"](h)))
        return from_tokens(h).float()

    def _check_size(self, x: Tensor) -> None:
        multiple = self.config.downsampling
        if x.shape[-1] % multiple or x.shape[-2] % multiple:
            raise ConfigError(
                f"height and width {tuple(x.shape[-2:])} must be multiples of {multiple} for this network; "
                "change the size of the data"
            )

    def _image_embedding(self, image_embedding: Tensor | None, dropped: Tensor | None, batch: int) -> Tensor | None:
        if not self.config.image_embedding_dim:
            return None
        null = self.cf_param.expand(batch, -1)
        if image_embedding is None:
            return null
        return image_embedding if dropped is None else torch.where(dropped[:, None], null, image_embedding)

    def _encode_text(
        self, tokens: Tensor | None, mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Run the network's own text encoder, if it has one."""
        if self.config.text_encoder is None:
            return None, None
        if tokens is None:
            tokens, mask = self.text_encoder.empty(batch)
        states, embedding = self.text_encoder(tokens, mask)
        return states, embedding

    def _embedding(
        self,
        dtype: torch.dtype,
        timestep: Tensor,
        fps: Tensor | None,
        image_embedding: Tensor | None,
        label: Tensor | None,
        text_embedding: Tensor | None,
        own_text_embedding: Tensor | None,
    ) -> Tensor:
        """Sum what every block is told, (B, 4*channels)."""
        c = self.config
        embedding: Tensor = self.time_embed(sinusoid(timestep, c.channels).to(dtype))
        if fps is not None and c.fps:
            embedding = embedding + self.fps_embed(sinusoid(fps, c.channels).to(dtype))
        if image_embedding is not None:
            embedding = embedding + self.clip_emb(image_embedding)
        if label is not None:
            embedding = embedding + self.label_emb(label)
        if c.text_dim:
            embedding = embedding + self.text_feat_proj(text_embedding)
        if own_text_embedding is not None:
            embedding = embedding + own_text_embedding
        return embedding

    def _context(
        self, image_embedding: Tensor | None, text_states: Tensor | None, text_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return context tokens (B, M, context_dim), the image's before the text's, and which of them count."""
        c = self.config
        if not c.context_dim:
            return None, None
        tokens = [] if image_embedding is None or not c.num_image_tokens else [self._image_tokens(image_embedding)]
        mask = None
        if c.text_dim:
            if text_mask is not None:
                mask = fn.pad(text_mask, (sum(t.shape[1] for t in tokens), 0), value=True)
            tokens.append(self.text_seq_proj(text_states))
        elif text_states is not None:
            tokens.append(text_states)  # padding has learned states of its own, and counts
        return (torch.cat(tokens, 1) if tokens else None), mask

    def _image_tokens(self, image_embedding: Tensor) -> Tensor:
        tokens: Tensor = self.clip_tok_proj(image_embedding)
        return tokens.view(-1, self.config.context_dim or 0, self.config.num_image_tokens).transpose(1, 2)
