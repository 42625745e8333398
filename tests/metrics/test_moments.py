import pytest
import torch
from torch import nn

from lightning_mav.errors import DataError, NumericError
from lightning_mav.metrics.moments import GaussianMoments, merge, moments_of


def features(n=60, dim=5, shift=0.0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + shift


def same(a, b, tolerance=1e-12):
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.scatter, b.scatter, rtol=tolerance, atol=tolerance)


def test_moments_are_those_of_torch():
    x = features()
    found = moments_of(x)
    torch.testing.assert_close(found.mean, x.mean(0))
    torch.testing.assert_close(found.covariance, torch.cov(x.T))


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_batches_of_seven_are_one_batch(shift):
    metric = GaussianMoments(5)
    for part in features(shift=shift).split(7):
        metric.update(part)
    same(metric.moments, moments_of(features(shift=shift)), 1e-10)


def test_merging_two_metrics_is_exact():
    metrics = [GaussianMoments(5), GaussianMoments(5), GaussianMoments(5)]
    for metric, part in zip(metrics, features().split([10, 50]), strict=False):
        metric.update(part)
    metrics[0].merge_state(metrics[1])
    metrics[0].merge_state(metrics[2])  # an empty one changes nothing
    same(metrics[0].moments, moments_of(features()))
    assert merge(GaussianMoments(5).moments, GaussianMoments(5).moments).count == 0
    assert [tuple(part.shape) for part in metrics[0].compute()] == [(), (5,), (5, 5)]


def test_casting_the_module_leaves_the_state_alone():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.metric, self.layer = GaussianMoments(5), nn.Linear(2, 2)

    holder = Holder()
    holder.metric.update(features())
    before = holder.metric.packed.clone()
    for cast in (lambda: holder.to(torch.bfloat16), holder.half, holder.float):
        cast()
        assert holder.metric.packed.dtype == torch.float64 and torch.equal(holder.metric.packed, before)
    assert not [key for key in holder.state_dict() if "metric" in key]
    holder.metric.reset()
    assert holder.metric.packed.dtype == torch.float64 and not holder.metric.packed.any()


def test_what_is_wrong_is_named():
    metric = GaussianMoments(5)
    with pytest.raises(DataError, match=r"expected features of shape \(N, 5\), got \(2, 3\)"):
        metric.update(torch.zeros(2, 3))
    bad = features()
    bad[3, 1] = torch.nan
    with pytest.raises(NumericError, match="samples 3 are not finite"):
        metric.update(bad)
    with pytest.raises(DataError, match="at least 2 samples"):
        _ = moments_of(features()[:1]).covariance
