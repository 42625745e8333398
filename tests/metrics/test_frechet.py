import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from lightning_mav.errors import ConfigError, DataError
from lightning_mav.metrics.frechet import (
    FrechetDistance,
    _congruent,
    frechet_distance,
    frechet_distance_of_features,
    jackknife,
    trace_sqrt_product,
)
from lightning_mav.metrics.moments import moments_of


def hadamard(n):
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


Z = hadamard(16)[:, 1:9]  # 16 samples of exact mean 0 and covariance 16/15 I


def distance(x, y):
    both = frechet_distance(moments_of(x), moments_of(y)), frechet_distance_of_features(x, y)
    assert both[0] == pytest.approx(both[1], rel=1e-9, abs=1e-6)
    return both[0]


def test_commuting_covariances():
    x = Z * torch.arange(1, 9)
    y = Z * torch.arange(8, 0, -1) + 0.5 * torch.arange(8)
    assert distance(x, y) == pytest.approx(214.2, abs=1e-10)


def test_covariances_that_do_not_commute():
    a, b = torch.tensor([[2.0, 1], [0, 1]]).double(), torch.tensor([[1.0, 0], [1, 3]]).double()
    assert distance(Z[:, :2] @ a.T, Z[:, :2] @ b.T) == pytest.approx(6.644981744779724, abs=1e-12)


def test_singular_covariances():
    x, y = Z.clone(), Z.clone()
    x[:, 4:], y[:, :4] = 0, 0
    assert distance(x, y) == pytest.approx(8 * 16 / 15, abs=1e-9)
    u, w = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.6, 0.8, 0]).double()
    expected = 16 / 15 * (9 + 25 - 30 * 0.6)
    assert distance(3 * Z[:, :1] * u, 5 * Z[:, :1] * w) == pytest.approx(expected, abs=1e-6)


def test_constants():
    assert distance(torch.zeros(8, 400), torch.ones(8, 400)) == pytest.approx(400)


def correlated(n, dim, scale=1.0, shift=0.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64) / dim**0.5
    mixing = mixing * (-torch.arange(dim) / 15).exp() * 3
    return torch.randn(n, dim, generator=draw, dtype=torch.float64) @ mixing.T * scale + shift


@pytest.mark.parametrize("n", [300, 64])
def test_agrees_with_an_independent_implementation(n):
    x, y = correlated(n, 100), correlated(n, 100, 1.1, 0.05, seed=1)
    a, b = moments_of(x), moments_of(y)
    theirs = float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))
    assert distance(x, y) == pytest.approx(theirs, rel=1e-5)


def nine_way_features():
    """Features on which many implementations were compared: two pairs of 2,048 and of 256 in 400 dimensions."""
    draw = np.random.default_rng(0)
    mixing = draw.standard_normal((400, 400)) / 400**0.5 * np.exp(-np.arange(400) / 60)[None] * 3

    def features(n, shift, scale):
        return torch.from_numpy((draw.standard_normal((n, 400)) @ mixing.T * scale + shift + 0.5).astype(np.float32))

    return [(features(n, 0, 1), features(n, 0.05, 1.1)) for n in (2048, 256)]


def test_agrees_with_other_tools_on_400_dimensions_with_many_and_with_few_samples():
    for (x, y), exact in zip(nine_way_features(), (9.62262859, 49.65416661), strict=True):
        theirs = [{"mu": z.numpy().astype(float).mean(0), "sigma": np.cov(z.numpy().astype(float).T)} for z in (x, y)]
        oracle = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
        found = frechet_distance_of_features(x, y)
        assert found == pytest.approx(exact, abs=1e-7)
        assert found == pytest.approx(oracle, rel=1.2e-5)  # theirs is up to 1.1e-5 off where covariances are singular


def test_invariances():
    x, y = correlated(200, 20), correlated(150, 20, 1.2, 0.1, seed=1)
    rotation = torch.linalg.qr(correlated(20, 20, seed=2))[0]
    d = distance(x, y)
    assert distance(x, x) < 1e-6
    assert distance(y, x) == pytest.approx(d)
    assert distance(x @ rotation + 3, y @ rotation + 3) == pytest.approx(d)
    assert distance(3 * x, 3 * y) == pytest.approx(9 * d)


def test_the_trace_is_that_of_the_product_s_root():
    a, b = (torch.cov(correlated(50, 8, seed=i).T) for i in range(2))
    eigenvalues = torch.linalg.eigvals(a @ b).sqrt().real.sum()
    assert float(trace_sqrt_product(a, b)) == pytest.approx(float(eigenvalues), rel=1e-9)


def test_the_metric_streams():
    x, y = correlated(100, 10), correlated(80, 10, seed=1)
    metric = FrechetDistance(moments_of(y))
    for part in x.split(7):
        metric.update(part)
    assert float(metric.compute()) == pytest.approx(distance(x, y), rel=1e-10)
    assert not metric.state_dict()


def test_the_jackknife_removes_the_bias_of_few_samples():
    dim, inside = 20, 0
    for seed in range(20):
        x = torch.randn(200, dim, generator=torch.Generator().manual_seed(2 * seed))
        y = 1.2 * torch.randn(200, dim, generator=torch.Generator().manual_seed(2 * seed + 1)) + 0.1
        truth = dim * (0.2**2 + 0.1**2)
        found = jackknife(x, y)
        inside += abs(found.value - truth) < 2 * found.error
        assert frechet_distance_of_features(x, y) > found.value
    assert inside >= 17


def test_what_is_wrong_is_named():
    with pytest.raises(DataError, match="widths 3 and 4"):
        frechet_distance(moments_of(torch.randn(5, 3)), moments_of(torch.randn(5, 4)))
    with pytest.raises(DataError, match="at least 40"):
        jackknife(torch.randn(39, 3), torch.randn(39, 3))
    with pytest.raises(ConfigError, match="take 20"):
        jackknife(torch.randn(39, 3), torch.randn(39, 3), groups=1)


@pytest.mark.parametrize("width", [3, 4, 7, 50])
def test_the_congruent_product_in_blocks_is_the_whole_one(width):
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(10, 10, dtype=torch.float64, generator=generator).tril()
    b = torch.randn(10, 10, dtype=torch.float64, generator=generator)
    assert torch.allclose(_congruent(lower, b @ b.T, width).tril(), (lower.T @ b @ b.T @ lower).tril())
