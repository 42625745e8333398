"""Attention kernels on token layouts, and the one switch between them.

Explicit matrix products where gradients are taken on CPU (the fused kernel's bf16 backward is 2 to 5 times slower
there), the fused kernel everywhere else. All projections have their rows in the order head -> [q | k | v].

B batch, F frames, N tokens of a frame, M context tokens, D width of a head.
"""

import torch
import torch.nn.functional as fn
from torch import Tensor

CUDA_GRID_LIMIT = 65535  # the fused CUDA kernels refuse more batch entries or heads than this


def spatial_attention(qkv: Tensor, num_heads: int, context_kv: Tensor | None, context_mask: Tensor | None) -> Tensor:
    """Attend over the tokens of each frame, with context tokens in front of the keys (one joint softmax).

    Args:
        qkv: (B, F, N, 3*heads*D).
        num_heads: Number of heads.
        context_kv: (B, M, 2*heads*D) or None.
        context_mask: (B, M), True where a context token counts, or None for all.

    Returns:
        (B, F, N, heads*D).
    """
    b, f, n, width = qkv.shape
    q, k, v = qkv.view(b * f, n, num_heads, 3, width // (3 * num_heads)).unbind(3)
    bias = None
    if context_kv is not None:
        m = context_kv.shape[1]
        context = context_kv.view(b, 1, m, num_heads, 2, -1).expand(-1, f, -1, -1, -1, -1).flatten(0, 1)
        k, v = torch.cat([context[:, :, :, 0], k], 1), torch.cat([context[:, :, :, 1], v], 1)
        if context_mask is not None:
            bias = _key_bias(context_mask, f, n, q.dtype)
    heads = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias)
    return heads.transpose(1, 2).reshape(b, f, n, width // 3)


def temporal_attention(qkv: Tensor, num_heads: int, position_bias: Tensor) -> Tensor:
    """Attend over the frames of each pixel; pixels times heads act as heads, so that nothing is copied.

    Args:
        qkv: (B, F, N, 3*heads*D).
        num_heads: Number of heads.
        position_bias: (heads, F, F), added to the scores.

    Returns:
        (B, F, N, heads*D).
    """
    b, f, n, width = qkv.shape
    if not _fused(qkv):
        q, k, v = qkv.view(b, f, n, num_heads, 3, -1).unbind(4)
        scores = torch.einsum("bfnhd,bgnhd->bnhfg", q * q.shape[-1] ** -0.5, k)
        return torch.einsum("bnhfg,bgnhd->bfnhd", _softmax(scores, position_bias), v).reshape(b, f, n, width // 3)
    q, k, v = (part.transpose(1, 2) for part in qkv.view(b, f, n * num_heads, 3, -1).unbind(3))
    limit = CUDA_GRID_LIMIT // num_heads * num_heads
    chunks = [
        fn.scaled_dot_product_attention(q, k, v, attn_mask=_tile(position_bias, q))
        for q, k, v in zip(*(torch.split(t, limit, 1) for t in (q, k, v)), strict=True)
    ]
    heads = chunks[0] if len(chunks) == 1 else torch.cat(chunks, 1)
    return heads.transpose(1, 2).reshape(b, f, n, width // 3)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention of q (B, heads, N, D) over k, v (B, heads, M, D); ``bias`` broadcasts to (B, heads, N, M)."""
    if not _fused(q):
        scores = torch.einsum("bhnd,bhmd->bhnm", q * q.shape[-1] ** -0.5, k)
        return torch.einsum("bhnm,bhmd->bhnd", _softmax(scores, bias), v)
    parts = [slice(i, i + CUDA_GRID_LIMIT) for i in range(0, len(q), CUDA_GRID_LIMIT)]
    biases = [None if bias is None else bias.expand(len(q), -1, -1, -1)[part] for part in parts]
    chunks = [
        fn.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=one)
        for part, one in zip(parts, biases, strict=True)
    ]
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def _fused(q: Tensor) -> bool:
    return q.is_cuda or not torch.is_grad_enabled()


def _softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    scores = scores if bias is None else scores + bias.to(scores.dtype)
    return scores.softmax(-1, dtype=torch.float32).to(scores.dtype)


def _key_bias(context_mask: Tensor, num_frames: int, num_tokens: int, dtype: torch.dtype) -> Tensor:
    """Return (B*F, 1, 1, M+N): minus infinity on masked context tokens, zero on pixels."""
    keep = fn.pad(context_mask, (0, num_tokens), value=True)
    bias = torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill(~keep, -torch.inf)
    return bias.repeat_interleave(num_frames, 0)[:, None, None]


def _tile(position_bias: Tensor, q: Tensor) -> Tensor:
    """Repeat (heads, F, F) over the pixels of q (B, pixels*heads, F, D)."""
    return position_bias.to(q.dtype).repeat(q.shape[1] // position_bias.shape[0], 1, 1)
