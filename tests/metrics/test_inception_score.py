import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from lightning_mav.errors import DataError
from lightning_mav.metrics.inception_score import inception_score, score


def test_one_hot_and_constant_predictions():
    assert score(1e4 * torch.eye(101)) == pytest.approx(101)
    assert score(torch.zeros(10, 101)) == pytest.approx(1)


def test_two_classes_in_closed_form():
    p = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    assert score(p.log()) == pytest.approx(1.4449348111684153, abs=1e-12)


def logits(n=1000):
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(101, (n,), generator=draw)
    x = 1.5 * torch.randn(n, 101, generator=draw)
    x[torch.arange(n), y] += 7
    return x[y.argsort()]


def test_agrees_with_an_independent_implementation():
    theirs = isc_features_to_metric(logits(), splits=1, shuffle=False)["inception_score_mean"]
    assert score(logits()) == pytest.approx(theirs, rel=1e-6)


def test_the_order_of_samples_hardly_matters_but_the_size_of_splits_does():
    x = logits()
    found = inception_score(x)
    mixed = inception_score(x[torch.randperm(len(x), generator=torch.Generator().manual_seed(1))])
    assert found.mean == pytest.approx(mixed.mean, rel=0.02)
    assert found.splits == 10 and found.std > 0
    assert inception_score(x, splits=1).mean > found.mean
    assert inception_score(x, splits=1).std == 0
    assert inception_score(x, seed=5) == inception_score(x, seed=5)


def test_saturated_logits_stay_finite():
    assert 1 <= score(1e5 * logits()) <= 101


def test_what_is_wrong_is_named():
    with pytest.raises(DataError, match="5 samples cannot make 10 splits"):
        inception_score(logits()[:5])
    with pytest.raises(DataError, match="not finite"):
        inception_score(torch.full((20, 3), torch.nan))
