"""From diffusers' names of Karlo's networks to Karlo's own: a renaming, with q, k and v interleaved again.

diffusers keeps q, k and v apart; here they are one matrix whose rows are ordered head by head, then q, k, v.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "encoder_hidden_states_proj": "text_seq_proj.0",
    "text_encoder_hidden_states_norm": "text_seq_proj.1",
    "clip_extra_context_tokens_proj": "clip_tok_proj",
    "embedding_proj": "text_feat_proj",
    "clip_image_embeddings_project_to_time_embeddings": "clip_emb",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_PRIOR_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "proj_in": "clip_img_proj",
    "embedding_proj": "text_emb_proj",
    "encoder_hidden_states_proj": "text_enc_proj",
    "norm_out": "final_ln",
    "proj_to_clip_embeddings": "out_proj",
}
_PRIOR_BLOCK = {
    "norm1": "ln_1",
    "norm3": "ln_2",
    "attn1.to_out.0": "attn.c_proj",
    "ff.net.0.proj": "mlp.c_fc",
    "ff.net.2": "mlp.c_proj",
}


@dataclass(frozen=True)
class UNetShape:
    """What block numbers depend on.

    Attributes:
        num_levels: Resolutions.
        num_res_blocks: Residual blocks of each.
        head_channels: Width of an attention head.
    """

    num_levels: int = 4
    num_res_blocks: int = 3
    head_channels: int = 64


def is_prior(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is diffusers' prior."""
    return "prd_embedding" in state


def is_unet(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is one of diffusers' U-Nets."""
    return "conv_norm_out.weight" in state


def is_text_projection(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dict is diffusers' text projection of the decoder."""
    return "learned_classifier_free_guidance_embeddings" in state


def native_prior(state: Mapping[str, Tensor], num_heads: int = 32) -> dict[str, Tensor]:
    """Return the prior under Karlo's names; statistics of embeddings keep theirs, ``clip_mean`` and ``clip_std``."""
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if block and block[2].startswith("attn1.to_") and block[2] != "attn1.to_out.0":
            continue
        if block:
            native[f"transformer.resblocks.{block[1]}.{_PRIOR_BLOCK[block[2]]}.{block[3]}"] = value
        else:
            stem, _, kind = key.rpartition(".")
            native[f"{_PRIOR_TOP[stem]}.{kind}" if stem in _PRIOR_TOP else _prior_bare(key)] = value
    numbers = sorted({int(m[1]) for key in state if (m := re.match(r"transformer_blocks\.(\d+)\.", key))})
    for i in numbers:
        for kind in ("weight", "bias"):
            parts = [state[f"transformer_blocks.{i}.attn1.to_{name}.{kind}"] for name in "qkv"]
            native[f"transformer.resblocks.{i}.attn.c_qkv.{kind}"] = interleaved(parts, num_heads)
    return native


def native_text_projection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the decoder's conditioning under Karlo's names."""
    native = {}
    for key, value in state.items():
        stem, _, kind = key.rpartition(".")
        bare = "cf_param" if key == "learned_classifier_free_guidance_embeddings" else key
        native[f"{_TOP[stem]}.{kind}" if stem in _TOP else bare] = value.flatten() if bare == "cf_param" else value
    return native


def native_unet(state: Mapping[str, Tensor], shape: UNetShape = UNetShape()) -> dict[str, Tensor]:
    """Return a U-Net under the names of ADM, GLIDE and Karlo."""
    native: dict[str, Tensor] = {}
    attentions: dict[str, str] = {}
    for key, value in state.items():
        stem, _, kind = key.rpartition(".")
        place, inside = _place(stem, shape, state)
        if place is None:
            native[f"{_TOP.get(stem, stem)}.{kind}"] = value
        elif inside in _RESNET:
            native[f"{place}.{_RESNET[inside]}.{kind}"] = value
        elif inside == "group_norm":
            native[f"{place}.norm.{kind}"] = value
            attentions[place] = stem.removesuffix(".group_norm")
        elif inside == "to_out.0":
            native[f"{place}.proj_out.{kind}"] = value[..., None] if kind == "weight" else value
        elif not re.fullmatch("to_[qkv]|add_[kv]_proj", inside):
            native[key] = value  # unknown; whoever converts refuses it by this name
    for place, source in attentions.items():
        native |= _attention(state, source, place, shape.head_channels)
    return native


def interleaved(parts: list[Tensor], num_heads: int) -> Tensor:
    """Stack q, k, v (or k, v), each (C, ...), so that rows are ordered head by head, then q, k, v."""
    heads = [part.reshape(num_heads, -1, *part.shape[1:]) for part in parts]
    return torch.stack(heads, 1).flatten(0, 2)


def _attention(state: Mapping[str, Tensor], source: str, place: str, head_channels: int) -> dict[str, Tensor]:
    native = {}
    for kind in ("weight", "bias"):
        groups = {"qkv": ("to_q", "to_k", "to_v"), "encoder_kv": ("add_k_proj", "add_v_proj")}
        for name, members in groups.items():
            keys = [f"{source}.{member}.{kind}" for member in members]
            if keys[0] in state:
                joined = interleaved([state[key] for key in keys], len(state[keys[0]]) // head_channels)
                native[f"{place}.{name}.{kind}"] = joined[..., None] if kind == "weight" else joined
    return native


def _place(stem: str, shape: UNetShape, state: Mapping[str, Tensor]) -> tuple[str | None, str]:
    """Return the native block that a diffusers name lies in, and the rest of the name."""
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", stem)
    per_level = shape.num_res_blocks + 1
    if found:
        side, level, kind, block, inside = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * per_level}.0", inside
        if kind == "upsamplers":
            attends = any(key.startswith(f"up_blocks.{level}.attentions.") for key in state)
            return f"output_blocks.{(level + 1) * per_level - 1}.{2 if attends else 1}", inside
        number = (1 + level * per_level if side == "down" else level * per_level) + block
        blocks = "input_blocks" if side == "down" else "output_blocks"
        return f"{blocks}.{number}.{int(kind == 'attentions')}", inside
    middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", stem)
    if middle is None:
        return None, stem
    attends = any(key.startswith("mid_block.attentions.") for key in state)
    last = 2 if attends else 1
    number = 1 if middle[1] == "attentions" else last * int(middle[2])
    return f"middle_block.{number}", middle[3]


def _prior_bare(key: str) -> str:
    return {"prd_embedding": "prd_emb"}.get(key, key)
