import pytest
import torch

from lightning_mav.diffusion.guidance import classifier_free_guidance


def network(x, t, condition):
    """Six channels out of three: each sample depends on its own x, timestep and condition only."""
    bias = condition["image_embedding"].mean(1) * condition["scale"] + t
    bias = bias.view(-1, *[1] * (x.dim() - 1))
    return torch.cat([x * bias, x + bias], dim=1)


@pytest.fixture(params=[(2, 3, 4, 5, 5), (2, 3)], ids=["video", "embedding"])
def inputs(request):
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(request.param, generator=generator), torch.tensor([3, 700])
    condition = {"image_embedding": torch.randn(2, 8, generator=generator), "scale": torch.tensor([1.0, 2.0])}
    null = {"image_embedding": torch.zeros(1, 8), "scale": torch.ones(2)}
    return x, t, condition, null


def expanded(null):
    return {name: value.expand(2, *value.shape[1:]) for name, value in null.items()}


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_one_batched_call_equals_two(inputs, scale):
    x, t, condition, null = inputs
    conditional, unconditional = network(x, t, condition), network(x, t, expanded(null))
    guided = classifier_free_guidance(network, x, t, condition, null, scale, num_mean_channels=3)
    expected = unconditional[:, :3] + scale * (conditional - unconditional)[:, :3]
    torch.testing.assert_close(guided[:, :3], expected)
    torch.testing.assert_close(guided[:, 3:], conditional[:, 3:])


def test_the_network_is_called_once(inputs):
    x, t, condition, null = inputs
    batches = []

    def counting(x, t, condition):
        batches.append(len(x))
        return network(x, t, condition)

    classifier_free_guidance(counting, x, t, condition, null, 4.0, 3)
    classifier_free_guidance(counting, x, t, condition, null, 1.0, 3)
    assert batches == [4, 2]


def test_all_channels_are_guided_without_a_learned_variance(inputs):
    x, t, condition, null = inputs
    conditional, unconditional = network(x, t, condition), network(x, t, expanded(null))
    guided = classifier_free_guidance(network, x, t, condition, null, 3.0, num_mean_channels=6)
    torch.testing.assert_close(guided, 3 * conditional - 2 * unconditional)


def test_bfloat16_output_is_combined_in_float32(inputs):
    x, t, condition, null = inputs

    def half(x, t, condition):
        return network(x, t, condition).bfloat16()

    guided = classifier_free_guidance(half, x, t, condition, null, 4.0, 3)
    conditional, unconditional = half(x, t, condition).float(), half(x, t, expanded(null)).float()
    torch.testing.assert_close(guided[:, :3], (4 * conditional - 3 * unconditional)[:, :3])
