from dataclasses import replace

import pytest
import torch

from lightning_mav.errors import DataError
from lightning_mav.metrics.extractors import NetworkExtractor
from lightning_mav.metrics.preprocess import Preprocess
from lightning_mav.metrics.random_extractor import random_extractor
from lightning_mav.seeding import generator


def videos(num=4, num_frames=9, size=20, key=0):
    shape = (num, 3, num_frames, size, size)
    return torch.randint(0, 256, shape, generator=generator(key), dtype=torch.uint8)


def test_the_random_extractor_is_a_function_of_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = random_extractor(seed=1), random_extractor(seed=1), random_extractor(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first(videos()), again(videos())) and first.fingerprint == again.fingerprint
    assert not torch.equal(first(videos()), other(videos())) and first.fingerprint != other.fingerprint


def test_its_features_follow_the_picture():
    smooth = torch.nn.functional.avg_pool3d(videos().float(), 3, stride=1, padding=1).to(torch.uint8)
    shifted = (videos().float() * 0.5 + 60).to(torch.uint8)
    extract = random_extractor(dim=16)
    base = extract(videos())
    assert base.shape == (4, 16) and base.dtype == torch.float32
    assert (extract(shifted) - base).abs().mean() > 0.05 * base.std()
    assert (extract(smooth) - base).abs().mean() > 0.05 * base.std()


def test_features_do_not_depend_on_the_batch_nor_on_autocast():
    extract, batch = random_extractor(), videos()
    together = extract(batch)
    assert torch.allclose(together, torch.cat([extract(one[None]) for one in batch]), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extract(batch), together)


def test_a_fingerprint_changes_with_weights_and_with_every_part_of_the_preprocessing():
    one = random_extractor()
    changes = [
        {"size": 16},
        {"aspect": "crop"},
        {"filter": "bicubic"},
        {"antialias": True},
        {"low": 0.0},
        {"std": (2, 2, 2)},
    ]
    others = [replace(one, preprocess=replace(one.preprocess, **change)) for change in changes]
    others += [replace(one, weights="other"), replace(one, name="other")]
    assert len({extractor.fingerprint for extractor in (one, *others)}) == 1 + len(others)


def test_videos_of_a_wrong_kind_are_refused_in_one_line():
    extract = NetworkExtractor("net", torch.nn.Identity(), Preprocess(8), 4, (9, None), "none")
    with pytest.raises(DataError, match="net needs at least 9 frames, but the videos have 8"):
        extract(videos(num_frames=8))
    with pytest.raises(DataError, match="net needs exactly 16 frames, but the videos have 9"):
        replace(extract, frames=(16, 16))(videos())
    with pytest.raises(DataError, match=r"net takes uint8 videos \(B, 3, F, H, W\), not torch.float32"):
        extract(videos().float())
