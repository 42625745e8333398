import gzip
import json

import pytest
import torch

from lightning_mav.networks.prior_transformer import CausalTransformer, PriorTransformer, PriorTransformerConfig

TINY = PriorTransformerConfig(embedding_dim=6, states_dim=5, width=16, num_layers=2, num_heads=2)


@pytest.fixture
def inputs():
    draw = torch.Generator().manual_seed(1)
    mask = torch.arange(77) < torch.tensor([[9], [4]])
    return {
        "x_t": torch.randn(2, 6, generator=draw),
        "timestep": torch.tensor([3, 700]),
        "text_embedding": torch.randn(2, 6, generator=draw),
        "text_states": torch.randn(2, 77, 5, generator=draw),
        "text_mask": mask,
    }


@pytest.fixture
def network(randomise):
    return randomise(PriorTransformer(TINY), std=0.2).eval()


def test_fits_the_open_karlo_prior_key_for_key(shared_data):
    with gzip.open(shared_data / "checkpoint_shapes.json.gz") as file:
        published = json.load(file)["karlo_prior.ckpt"]
    with torch.device("meta"):
        network = PriorTransformer(PriorTransformerConfig())
    ours = {f"model.{key}": list(value.shape) for key, value in network.state_dict().items()}
    assert ours == published


def test_later_tokens_never_change_earlier_outputs(randomise):
    transformer = randomise(CausalTransformer(16, 2, 2))
    x, valid = torch.randn(1, 7, 16), torch.ones(1, 7, dtype=torch.bool)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = transformer(x, valid), transformer(changed, valid)
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(-1).min() > 1e-3


def test_padding_changes_nothing_and_the_mask_does(network, inputs):
    with torch.no_grad():
        before = network(**inputs)
        noisy = inputs["text_states"] + 10 * ~inputs["text_mask"][..., None]
        assert torch.equal(network(**inputs | {"text_states": noisy}), before)
        everything = torch.ones_like(inputs["text_mask"])
        assert (network(**inputs | {"text_mask": everything}) - before).abs().max() > 1e-3


def test_shared_padding_may_be_left_out(network, inputs):
    short = inputs | {name: inputs[name][:, :9] for name in ("text_states", "text_mask")}
    with torch.no_grad():
        assert torch.allclose(network(**short), network(**inputs), atol=1e-6)


@pytest.mark.parametrize("name", ["x_t", "text_embedding", "text_states"])
def test_every_input_counts(network, inputs, name):
    with torch.no_grad():
        moved = network(**inputs | {name: inputs[name] + 1})
        assert (moved - network(**inputs)).abs().max() > 1e-3
        later = network(**inputs | {"timestep": inputs["timestep"] + 100})
        assert (later - network(**inputs)).abs().max() > 1e-4


def test_rows_of_the_projection_are_ordered_by_head(randomise):
    """Silencing the value rows of head 0 leaves an attention that only head 1 feeds."""
    attention = randomise(CausalTransformer(16, 1, 2)).resblocks[0].attn
    x, bias = torch.randn(1, 5, 16), torch.zeros(1, 1, 5, 5)
    with torch.no_grad():
        for rows in (attention.c_qkv.weight, attention.c_qkv.bias):
            rows.view(2, 3, 8, -1)[0, 2] = 0
        before = attention(x, bias)
        attention.c_proj.weight[:, :8] += 1  # what reads head 0
        assert torch.equal(attention(x, bias), before)
        attention.c_proj.weight[:, 8:] += 1  # what reads head 1
        assert not torch.allclose(attention(x, bias), before)


def test_the_default_backward_reaches_every_parameter(inputs):
    network = PriorTransformer(TINY)
    network(**inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
