"""Karlo's networks under diffusers' names and under Karlo's own: one table, which is read in both directions.

diffusers keeps q, k and v apart; here they are one matrix whose rows are ordered head by head, then q, k, v.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mav.networks.prior_transformer import PriorTransformerConfig
from lightning_mav.networks.unet import UNetConfig

# Karlo's own name: diffusers' name, or the names of what Karlo's own joins.
_UNET = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {
    "norm": "group_norm",
    "qkv": "to_q to_k to_v",
    "encoder_kv": "add_k_proj add_v_proj",
    "proj_out": "to_out.0",
}
_TEXT_PROJECTION = {
    "text_seq_proj.0": "encoder_hidden_states_proj",
    "text_seq_proj.1": "text_encoder_hidden_states_norm",
    "clip_tok_proj": "clip_extra_context_tokens_proj",
    "text_feat_proj": "embedding_proj",
    "clip_emb": "clip_image_embeddings_project_to_time_embeddings",
}
_PRIOR = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "clip_img_proj": "proj_in",
    "text_emb_proj": "embedding_proj",
    "text_enc_proj": "encoder_hidden_states_proj",
    "final_ln": "norm_out",
    "out_proj": "proj_to_clip_embeddings",
}
_PRIOR_BLOCK = {
    "ln_1": "norm1",
    "attn.c_qkv": "attn1.to_q attn1.to_k attn1.to_v",
    "attn.c_proj": "attn1.to_out.0",
    "ln_2": "norm3",
    "mlp.c_fc": "ff.net.0.proj",
    "mlp.c_proj": "ff.net.2",
}
_POINTWISE = ("qkv", "encoder_kv", "proj_out")  # convolutions of one pixel here, linear layers there


@dataclass(frozen=True)
class Name:
    """What one tensor is called in both layouts.

    Attributes:
        native: Its name here.
        diffusers: Its name there, or the names of the tensors it joins.
        head_width: Rows of each of those that belong to one attention head.
    """

    native: str
    diffusers: tuple[str, ...]
    head_width: int = 1

    @property
    def is_pointwise(self) -> bool:
        """Whether the tensor has one more axis here, of size 1."""
        *_, layer, kind = ("", *self.native.split("."))
        return layer in _POINTWISE and kind == "weight"


def is_prior(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is diffusers' prior."""
    return "prd_embedding" in state


def is_unet(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is one of diffusers' U-Nets."""
    return "conv_norm_out.weight" in state


def is_text_projection(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is diffusers' text projection of the decoder."""
    return "learned_classifier_free_guidance_embeddings" in state


def unet_names(network: UNetConfig) -> list[Name]:
    """Return the names of a U-Net, without its conditioning."""
    names = list(_layers(_UNET))
    for native, diffusers in _blocks(network):
        inside = _ATTENTION if ".attentions." in diffusers else _RESNET
        names += _layers(inside, f"{native}.", f"{diffusers}.", network.head_channels)
    return names


def text_projection_names() -> list[Name]:
    """Return the names of the decoder's conditioning by image and text, a model of its own in diffusers."""
    return [*_layers(_TEXT_PROJECTION), Name("cf_param", ("learned_classifier_free_guidance_embeddings",))]


def prior_names(network: PriorTransformerConfig) -> list[Name]:
    """Return the names of the prior; the statistics of embeddings are no part of it here."""
    names = [*_layers(_PRIOR), Name("prd_emb", ("prd_embedding",))]
    names.append(Name("positional_embedding", ("positional_embedding",)))
    for i in range(network.num_layers):
        places = f"transformer.resblocks.{i}.", f"transformer_blocks.{i}."
        names += _layers(_PRIOR_BLOCK, *places, network.width // network.num_heads)
    return names


def to_native(state: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    """Return tensors under their names here; those of other names stay as they are, for the caller to refuse."""
    left, native = dict(state), {}
    for name in names:
        if all(part in left for part in name.diffusers):
            value = _joined([left.pop(part) for part in name.diffusers], name.head_width)
            native[name.native] = value[..., None] if name.is_pointwise else value
    return native | left


def to_diffusers(state: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    """Return those of our tensors that ``names`` holds, under diffusers' names."""
    diffusers: dict[str, Tensor] = {}
    for name in names:
        if name.native in state:
            value = state[name.native]
            parts = _parted(value[..., 0] if name.is_pointwise else value, len(name.diffusers), name.head_width)
            diffusers |= zip(name.diffusers, parts, strict=True)
    return diffusers


def interleaved(parts: Sequence[Tensor], num_heads: int) -> Tensor:
    """Stack q, k, v (or k, v), each (C, ...), so that rows are ordered head by head, then q, k, v."""
    heads = [part.reshape(num_heads, -1, *part.shape[1:]) for part in parts]
    return torch.stack(heads, 1).flatten(0, 2)


def _joined(parts: list[Tensor], head_width: int) -> Tensor:
    return parts[0] if len(parts) == 1 else interleaved(parts, len(parts[0]) // head_width)


def _parted(value: Tensor, num_parts: int, head_width: int) -> list[Tensor]:
    """Undo ``_joined``."""
    if num_parts == 1:
        return [value]
    heads = value.reshape(-1, num_parts, head_width, *value.shape[1:])
    return [part.flatten(0, 1) for part in heads.unbind(1)]


def _layers(table: Mapping[str, str], native: str = "", diffusers: str = "", head_width: int = 1) -> Iterator[Name]:
    """Yield the weight and bias of each layer in ``table``, behind the prefixes of the place they lie in."""
    for here, there in table.items():
        for kind in ("weight", "bias"):
            parts = tuple(f"{diffusers}{part}.{kind}" for part in there.split())
            yield Name(f"{native}{here}.{kind}", parts, head_width)


def _blocks(network: UNetConfig) -> Iterator[tuple[str, str]]:
    """Yield what each residual and attention block is called here and there."""
    num_levels, per_level = len(network.channel_mult), network.num_res_blocks + 1
    for level in range(num_levels):
        attends = 2**level in network.attention_downsamples
        first, up = 1 + level * per_level, num_levels - 1 - level  # diffusers counts its up blocks from the deepest
        yield from _level("input_blocks", first, f"down_blocks.{level}", network.num_res_blocks, attends)
        yield from _level("output_blocks", up * per_level, f"up_blocks.{up}", per_level, attends)
        if up > 0:
            yield f"input_blocks.{first + network.num_res_blocks}.0", f"down_blocks.{level}.downsamplers.0"
        if level > 0:
            yield f"output_blocks.{(up + 1) * per_level - 1}.{1 + attends}", f"up_blocks.{up}.upsamplers.0"
    yield "middle_block.0", "mid_block.resnets.0"
    if network.mid_attention:
        yield "middle_block.1", "mid_block.attentions.0"
    yield f"middle_block.{1 + network.mid_attention}", "mid_block.resnets.1"


def _level(native: str, first: int, diffusers: str, num_blocks: int, attends: bool) -> Iterator[tuple[str, str]]:
    for block in range(num_blocks):
        yield f"{native}.{first + block}.0", f"{diffusers}.resnets.{block}"
        if attends:
            yield f"{native}.{first + block}.1", f"{diffusers}.attentions.{block}"
