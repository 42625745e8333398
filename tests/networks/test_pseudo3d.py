import torch

from lightning_mav.networks.conditioning import BlockCondition, sinusoid
from lightning_mav.networks.pseudo3d import (
    PseudoAttention3d,
    PseudoConv3d,
    TemporalAttention,
    TemporalConfig,
    is_dirac,
    is_temporal,
)


def test_pseudo_convolution_starts_as_its_2d_convolution():
    layer = PseudoConv3d(4, 8, TemporalConfig())
    x = torch.randn(2, 3, 5, 5, 4)
    expected = torch.nn.functional.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x).flatten(0, 1).permute(0, 3, 1, 2), expected, atol=1e-6)


def test_temporal_kernel_reaches_its_neighbours_only():
    layer = PseudoConv3d(4, 4, TemporalConfig(kernel_size=3))
    torch.nn.init.normal_(layer.temporal.weight)
    x = torch.randn(1, 7, 3, 3, 4)
    changed = x.clone()
    changed[:, 3] += 1
    moved = (layer(changed) - layer(x)).abs().amax((0, 2, 3, 4)) > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False, False]


def test_attention_over_frames_starts_as_the_identity():
    layer = TemporalAttention(16, 2, 4, max_distance=3)
    x = torch.randn(2, 5, 3, 3, 16)
    assert torch.equal(layer(x), x)


def test_relative_positions_depend_on_distance_and_are_clipped():
    layer = TemporalAttention(16, 2, 4, max_distance=2)
    torch.nn.init.normal_(layer.pos)
    bias = layer._position_bias(6)
    assert torch.equal(bias[:, 0, 1], bias[:, 3, 4]) and not torch.equal(bias[:, 0, 1], bias[:, 1, 0])
    assert torch.equal(bias[:, 0, 2], bias[:, 0, 5])


def test_temporal_attention_can_be_left_out():
    layer = PseudoAttention3d(16, 2, 4, None, TemporalConfig(attention=False))
    assert layer.temporal is None
    layer(torch.randn(1, 2, 3, 3, 16), BlockCondition(torch.zeros(1, 1)))


def test_predicates_name_the_new_parameters():
    temporal = ["a.temporal.weight", "middle_block.1.temporal.norm.bias", "fps_embed.0.weight", "x.extra.weight"]
    assert all(map(is_temporal, temporal)) and not is_temporal("input_blocks.0.0.weight")
    assert is_dirac("a.temporal.weight") and not is_dirac("middle_block.1.temporal.qkv.weight")


def test_sinusoid_has_cosines_first():
    embedding = sinusoid(torch.tensor([0, 5]), 8)
    assert torch.equal(embedding[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert torch.allclose(embedding[1, 0], torch.tensor(5.0).cos())
