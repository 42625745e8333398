import pytest
import torch
import torch.nn.functional as fn

from lightning_mav.networks import layout


@pytest.mark.parametrize("shape", [(1, 2, 3, 4, 4), (2, 8, 5, 2, 6), (3, 1, 1, 1, 1)])
def test_tokens_and_videos_are_inverse(shape):
    video = torch.randn(shape)
    assert torch.equal(layout.from_tokens(layout.to_tokens(video)), video)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_convolutions_match_their_textbook_form(num_frames):
    video, spatial, temporal = torch.randn(2, 8, num_frames, 6, 6), torch.randn(8, 8, 3, 3), torch.randn(8, 8, 3, 1)
    x = layout.to_tokens(video)
    expected = fn.conv3d(video, spatial[:, :, None], padding=(0, 1, 1))
    actual = layout.spatial_conv(x, spatial.to(memory_format=torch.channels_last), None)
    assert torch.allclose(layout.from_tokens(actual), expected, atol=1e-4)
    expected = fn.conv3d(video, temporal[..., None], torch.ones(8), padding=(1, 0, 0))
    actual = layout.temporal_conv(x, temporal.to(memory_format=torch.channels_last), torch.ones(8))
    assert torch.allclose(layout.from_tokens(actual), expected, atol=1e-4)


def test_both_group_norms_agree_and_keep_frames_apart():
    x, weight, bias = torch.randn(2, 3, 4, 4, 16) * 3 + 1, torch.randn(16), torch.randn(16)
    ours = layout._strided_group_norm(x, 4, weight, bias, 1e-5)
    assert torch.allclose(ours, layout.group_norm(x, 4, weight, bias), atol=1e-5)
    changed = x.clone()
    changed[:, 1] *= 5
    assert torch.equal(layout.group_norm(changed, 4, weight, bias)[:, 0], layout.group_norm(x, 4, weight, bias)[:, 0])


@pytest.mark.parametrize("channels", [32, 64])  # groups of 8 channels and of 16: by way of float32, and not
def test_bf16_is_normalised_as_its_float32_copy(channels):
    x, weight, bias = (
        torch.randn(2, 3, 4, 4, channels, dtype=torch.bfloat16),
        torch.randn(channels),
        torch.randn(channels),
    )
    ours = layout.group_norm(x, 4, weight, bias)
    assert ours.dtype == torch.bfloat16
    assert torch.allclose(ours.float(), layout.group_norm(x.float(), 4, weight, bias), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pointwise_is_the_linear_map_of_channels(dtype):
    x, weight, bias = torch.randn(2, 5, 8, dtype=dtype), torch.randn(6, 8, dtype=dtype), torch.randn(6, dtype=dtype)
    for one in (x, x.transpose(0, 1)):  # context tokens are not contiguous
        assert torch.allclose(layout.pointwise(one, weight, bias), fn.linear(one, weight, bias), atol=1e-5)


def test_down_undoes_up():
    x = torch.randn(2, 3, 4, 4, 8)
    assert torch.allclose(layout.downsample(layout.upsample(x)), x, atol=1e-6)
