"""What the meter counts, on operations whose bytes and FLOPs are known."""

import pytest
import torch

from lightning_mav.networks.attention import attend
from lightning_mav.networks.pseudo3d import GroupNorm
from lightning_mav.planning.meter import metered

MB = 1_000_000


def megabytes(n=1):
    return torch.empty(n * MB, dtype=torch.uint8)


def test_live_and_peak_bytes_follow_storages():
    with metered("cpu") as meter:
        a = megabytes(3)
        view, b = a[: MB // 2], megabytes(2)
        assert meter.live.total() == 5 * MB
        del a
        assert meter.live.total() == 5 * MB  # the view keeps the storage
        del view, b
        assert meter.live.total() == 0
    assert meter.peak.total() == 5 * MB


def test_assigned_storages_are_told_apart_at_the_peak():
    with metered("cpu") as meter:
        weights = megabytes(4)
        meter.assign([weights, weights[:10], None], "weights")
        meter.restart()
        assert meter.peak == {"weights": 4 * MB, "activations": 0}
        megabytes(7)
        kept = megabytes(1)
        assert meter.peak == {"weights": 4 * MB, "activations": 7 * MB}
        assert meter.live == {"weights": 4 * MB, "activations": kept.nbytes}


def test_no_memory_is_taken():
    with metered("cpu") as meter:
        x = torch.empty(10**9, 10**6)  # a petabyte of float32, four times
    assert meter.peak.total() == x.nbytes == 4 * 10**15


def test_flops_of_forward_and_backward_are_those_of_the_textbook():
    with metered("cpu") as meter:
        x = torch.empty(3, 5, requires_grad=True)
        w = torch.empty(5, 7, requires_grad=True)
        y = x @ w
        assert meter.flops == 2 * 3 * 5 * 7
        y.sum().backward()
    assert meter.flops == 3 * 2 * 3 * 5 * 7  # and as much for either gradient


@pytest.mark.parametrize(("device", "stored"), [("cpu", True), ("cuda", False)])
def test_a_gpu_attends_without_storing_scores(device, stored):
    n = 512
    with metered(device) as meter:
        q = torch.empty(1, 2, n, 16, requires_grad=True)
        attend(q, q, q, None).sum().backward()
    assert (meter.peak.total() > 2 * n * n * 4) == stored


def test_a_gpu_normalises_in_token_order():
    norm = GroupNorm(4, 64)
    peaks = {}
    for device in ("cpu", "cuda"):
        with metered(device) as meter, torch.no_grad():
            norm(torch.empty(1, 2, 8, 8, 64, dtype=torch.bfloat16))
        peaks[device] = meter.peak.total()
    assert peaks["cuda"] > peaks["cpu"]  # its statistics are taken from a float32 copy
