from dataclasses import replace

import pytest
import torch

from lightning_mav.diffusion.noise import NoiseStream
from lightning_mav.models.base import Sampling
from lightning_mav.models.prior import Prior, PriorConfig, best_match
from lightning_mav.networks.encoders import TextEncoding
from lightning_mav.networks.prior_transformer import PriorTransformerConfig

NETWORK = PriorTransformerConfig(embedding_dim=6, states_dim=5, width=16, num_layers=1, num_heads=2)
CONFIG = PriorConfig(NETWORK, sampling=Sampling(sampler="ddpm", steps=4, guidance_scale=2.0))


def encoding(batch, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(77).expand(batch, -1) < 5
    embedding, states = torch.randn(batch, 6, generator=draw), torch.randn(batch, 77, 5, generator=draw)
    return TextEncoding(embedding, states, mask)


def stream(batch=3):
    return NoiseStream.keyed([("generate", 0, i, "prior") for i in range(batch)])


@pytest.fixture
def prior():
    torch.manual_seed(0)
    return Prior(CONFIG).eval().requires_grad_(False)


def test_loss_is_zero_for_a_network_that_knows_the_embedding(prior):
    batch = encoding(3).as_condition() | {"image_embedding": torch.randn(3, 6)}
    prior.call = lambda x_t, timestep, condition: batch["image_embedding"][:, None]
    losses = prior.loss(batch, torch.randn(3, 6), torch.tensor([0, 500, 999]))
    assert losses["loss"].shape == (3,)
    assert not losses["loss"].any()


@pytest.mark.parametrize("space", ["raw", "standardised", "l2_scaled"])
def test_spaces_invert(space):
    prior = Prior(replace(CONFIG, embed_space=space))
    data = torch.randn(2000, 6) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + 2
    prior.embedding_mean.copy_(data.mean(0))
    prior.embedding_std.copy_(data.std(0))
    inside = prior.to_space(data)
    back = prior.from_space(inside)
    assert torch.allclose(torch.cosine_similarity(back, data), torch.ones(len(data)), atol=1e-5)
    if space == "l2_scaled":
        assert torch.allclose(inside.square().mean(-1), torch.ones(len(data)))
        assert torch.allclose(back.norm(dim=-1).square().mean(), data.norm(dim=-1).square().mean(), rtol=0.01)
    else:
        assert torch.allclose(back, data, atol=1e-4)
    if space == "standardised":
        assert torch.allclose(inside.mean(0), torch.zeros(6), atol=1e-4)
        assert torch.allclose(inside.std(0), torch.ones(6), atol=1e-4)


def test_statistics_travel_with_the_weights(prior):
    assert {"embedding_mean", "embedding_std"} <= set(prior.state_dict())


def test_samples_depend_on_their_own_noise_alone(prior):
    together = prior.sample(encoding(3), encoding(1, seed=9), stream(3))
    assert together.shape == (3, 6)
    text = encoding(3)
    first = TextEncoding(text.embedding[:1], text.states[:1], text.mask[:1])
    assert torch.allclose(prior.sample(first, encoding(1, seed=9), stream(1)), together[:1], atol=1e-5)


def test_the_better_candidate_is_kept(prior):
    text, null = encoding(3), encoding(1, seed=9)

    def match(num_candidates):
        drawn = prior.sample(text, null, stream(), num_candidates=num_candidates)
        return torch.cosine_similarity(drawn, text.embedding).mean()

    assert match(8) > match(1)


def test_best_match_goes_by_direction():
    candidates = torch.tensor([[[10.0, 10.0], [1.0, 0.0]]])
    assert best_match(candidates, torch.tensor([[2.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_guidance_moves_away_from_the_empty_text(prior):
    text, null = encoding(3), encoding(1, seed=9)
    plain = replace(CONFIG.sampling, guidance_scale=1.0)
    samples = [prior.sample(text, null, stream(), sampling=s) for s in (plain, CONFIG.sampling)]
    assert not torch.allclose(*samples)
    other_null = prior.sample(text, encoding(1, seed=8), stream(), sampling=plain)
    assert torch.equal(other_null, samples[0])


def test_predictions_are_bounded():
    prior = Prior(replace(CONFIG, clip_x0=0.1, embed_space="raw")).requires_grad_(False)
    assert prior.sample(encoding(3), encoding(1), stream()).abs().max() <= 0.1 + 1e-6


def test_learns_a_conditional_distribution():
    """Two texts, two clusters: after a few steps the samples for a text lie in its cluster."""
    torch.manual_seed(0)
    prior = Prior(replace(CONFIG, sampling=Sampling(sampler="dpm++", steps=8)))
    text, targets = encoding(2), torch.tensor([[1.0, 1, 1, -1, -1, -1], [-1.0, 1, -1, 1, -1, 1]])
    condition = {name: value.repeat(32, 1, *[1] * (value.ndim - 2)) for name, value in text.as_condition().items()}
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3)
    for _ in range(60):
        batch = condition | {"image_embedding": targets.repeat(32, 1) + 0.1 * torch.randn(64, 6)}
        loss = prior.loss(batch, torch.randn(64, 6), torch.randint(0, 1000, (64,)))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        drawn = prior.sample(text, encoding(1, seed=9), stream(2))
    assert torch.cosine_similarity(drawn, targets).min() > 0.95
