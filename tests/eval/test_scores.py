import math

import pytest
import torch

from eval.protocols import MetricSpec
from eval.scores import conventions, score
from lightning_mav.errors import DataError
from lightning_mav.metrics.frechet import frechet_distance_of_features, jackknife
from lightning_mav.metrics.inception_score import inception_score
from lightning_mav.seeding import generator

FVD = MetricSpec("frechet", "i3d", "fvd")


def features(num, dim=8, shift=0.0, key="x"):
    return (torch.randn(num, 1, dim, generator=generator(key)) + shift).float()


def test_a_distance_is_plain_and_beside_it_without_bias_and_with_a_curve():
    x, y = features(400), features(300, shift=0.3, key="y")
    found = score(FVD, x, y, [""] * 400, 0)
    assert found.value == pytest.approx(frechet_distance_of_features(x[:, 0], y[:, 0]), rel=1e-9)
    assert (found.n, found.num_real) == (400, 300)
    truth = 8 * 0.3**2
    assert abs(found.corrected - truth) < 3 * found.corrected_error < truth
    assert [n for n, _ in found.curve] == [100, 140, 200, 280, 400]
    assert found.curve[0][1] > found.curve[-1][1] > found.extrapolated
    assert found.extrapolated == pytest.approx(truth, rel=0.3)


def test_fewer_videos_are_drawn_from_the_seed_whatever_their_order_on_disk():
    spec = MetricSpec("frechet", "i3d", "fvd", num=100, num_real=120)
    x, y = features(400), features(300, key="y")
    found = score(spec, x, y, [""] * 400, 0)
    assert (found.n, found.num_real) == (100, 120)
    assert found == score(spec, x, y, [""] * 400, 0) != score(spec, x, y, [""] * 400, 1)


def test_repeats_average_fresh_sets():
    spec = MetricSpec("frechet", "i3d", "fvd", num=50, repeats=4)
    x, y = features(300), features(100, shift=1.0, key="y")
    found = score(spec, x, y, [""] * 300, 0)
    order = torch.randperm(300, generator=generator("generated", 0))[:200]
    each = [frechet_distance_of_features(x[part, 0], y[:, 0]) for part in order.chunk(4)]
    assert found.value == pytest.approx(sum(each) / 4) and found.n == 200
    assert found.error == pytest.approx(torch.tensor(each, dtype=torch.float64).std().item() / 2)


def test_leaving_out_a_video_leaves_out_all_its_frames():
    frames, real = (features(60, shift=s, key=s).expand(60, 5, 8).contiguous() for s in (0.0, 1.0))
    single = jackknife(frames[:, 0], real[:, 0])
    assert score(FVD, frames, real, [""] * 60, 0).corrected == pytest.approx(single.value, rel=0.05)


def test_inception_scores_in_both_conventions():
    logits = 4 * torch.randn(20480, 11, generator=generator("logits"))
    found = conventions(logits, 0)
    assert all(one is not None for one in found.values())
    ten, sets, whole = found.values()
    assert (ten.n, sets.n, whole.n) == (2048, 20480, 20480)
    assert ten.value < sets.value < whole.value
    each = [inception_score(part, 1).mean for part in logits.chunk(10)]
    assert sets.value == pytest.approx(sum(each) / 10)
    few = conventions(logits[:100], 0)
    assert [one is None for one in few.values()] == [True, True, False]


def test_clipsim_weighs_prompts_alike_and_its_error_is_over_prompts():
    spec = MetricSpec("clip_similarity", "clip_vit_b32", "clipsim")
    found = score(spec, torch.tensor([0.1, 0.3, 0.6]).view(3, 1, 1), None, ["a", "a", "b"], 0)
    assert found.value == pytest.approx((0.2 + 0.6) / 2)
    assert found.error == pytest.approx(0.4 / math.sqrt(2) / math.sqrt(2))


@pytest.mark.row(58)
def test_too_few_videos_give_a_line_and_no_number():
    with pytest.raises(DataError, match=r"fvd: 30 generated videos, but its protocol takes 2048"):
        score(MetricSpec("frechet", "i3d", "fvd", num=2048), features(30), features(30), [""] * 30, 0)
    with pytest.raises(DataError, match=r"30 videos are too few for a Frechet distance"):
        score(FVD, features(30), features(60), [""] * 30, 0)
    with pytest.raises(DataError, match=r"fvd: 50 real videos, but its protocol takes 60"):
        score(MetricSpec("frechet", "i3d", "fvd", num_real=60), features(60), features(50), [""] * 60, 0)
    with pytest.raises(DataError, match=r"set benchmark.data.videos to their folder"):
        score(FVD, features(60), None, [""] * 60, 0)


@pytest.mark.row(58)
def test_features_that_are_not_finite_give_no_number():
    bad = features(60)
    bad[7] = torch.nan
    with pytest.raises(Exception, match=r"not finite"):
        score(FVD, bad, features(60), [""] * 60, 0)
