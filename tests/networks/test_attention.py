import pytest
import torch

from lightning_mav.networks import attention


@pytest.fixture
def qkv():
    return torch.randn(2, 4, 6, 3 * 2 * 8, generator=torch.Generator().manual_seed(0))


def reference(q, k, v, bias=None):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def heads_first(qkv, part):
    """Rows in the order head -> [q | k | v], the published one."""
    b, f, n, _ = qkv.shape
    return qkv.view(b, f, n, 2, 3, 8)[:, :, :, :, part]


@pytest.mark.parametrize("grad", [False, True])
def test_spatial_attention_is_softmax_attention_within_frames(qkv, grad):
    with torch.set_grad_enabled(grad):
        actual = attention.spatial_attention(qkv, 2, None, None)
    q, k, v = (heads_first(qkv, i).transpose(2, 3) for i in range(3))
    expected = reference(q, k, v).transpose(2, 3).reshape(actual.shape)
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_temporal_attention_is_softmax_attention_over_frames_of_each_pixel(qkv, grad):
    bias = torch.randn(2, 4, 4)
    with torch.set_grad_enabled(grad):
        actual = attention.temporal_attention(qkv, 2, bias)
    q, k, v = (heads_first(qkv, i).permute(0, 2, 3, 1, 4) for i in range(3))
    expected = reference(q, k, v, bias).permute(0, 3, 1, 2, 4).reshape(actual.shape)
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
def test_context_joins_the_keys_and_its_mask_removes_it(qkv, grad):
    context = torch.randn(2, 3, 2 * 2 * 8)
    with torch.set_grad_enabled(grad):
        plain = attention.spatial_attention(qkv, 2, None, None)
        joined = attention.spatial_attention(qkv, 2, context, None)
        masked = attention.spatial_attention(qkv, 2, context, torch.zeros(2, 3, dtype=torch.bool))
    assert (joined - plain).abs().max() > 1e-3
    assert torch.allclose(masked, plain, atol=1e-5)


def test_more_heads_than_the_grid_takes_are_split(qkv, monkeypatch):
    bias, context, mask = torch.randn(2, 4, 4), torch.randn(2, 3, 32), torch.rand(2, 3) < 0.5
    with torch.no_grad():
        whole = attention.temporal_attention(qkv, 2, bias), attention.spatial_attention(qkv, 2, context, mask)
        monkeypatch.setattr(attention, "CUDA_GRID_LIMIT", 5)
        split = attention.temporal_attention(qkv, 2, bias), attention.spatial_attention(qkv, 2, context, mask)
    for one, other in zip(whole, split, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
