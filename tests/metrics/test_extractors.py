from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_mav.errors import CheckpointError, DataError
from lightning_mav.metrics import extractors
from lightning_mav.metrics.c3d import C3D, load_c3d
from lightning_mav.metrics.extractors import NetworkExtractor, c3d, i3d, random_extractor
from lightning_mav.metrics.i3d import I3D
from lightning_mav.metrics.preprocess import Preprocess
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


def test_i3d_loads_its_published_layout_by_path_and_refuses_another(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_mav.metrics.weights.registry", _without_checksum("i3d"))
    network = I3D()
    torch.save(network.state_dict(), tmp_path / "i3d.pt")
    extract = i3d(str(tmp_path / "i3d.pt"))
    assert torch.equal(extract.network.logits["conv3d"].weight, network.logits["conv3d"].weight)
    assert (extract.dim, extract.frames) == (400, (9, None)) and not extract.network.training
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    np.savez(tmp_path / "no.npz", a=np.zeros(1))
    for wrong in ("other.pt", "no.npz"):
        with pytest.raises(CheckpointError, match=f"{wrong}: is no state dict of I3D"):
            i3d(str(tmp_path / wrong))


def test_a_file_of_another_checksum_is_not_i3d(tmp_path):
    torch.save(I3D().state_dict(), tmp_path / "i3d.pt")
    with pytest.raises(CheckpointError, match=r"i3d.pt: is not i3d: expected git blob a867b87a"):
        i3d(str(tmp_path / "i3d.pt"))


def test_c3d_alone_resizes_its_frames(tmp_path, monkeypatch):
    narrow = {"width": 2, "hidden": 8}
    monkeypatch.setattr(extractors, "load_c3d", lambda weights, mean: load_c3d(weights, mean, **narrow))
    keys = {"weight": "W", "bias": "b"}
    arrays = {}
    for name, value in C3D(**narrow).named_parameters():
        layer, kind = name.split(".")
        arrays[f"{layer}/{keys[kind]}"] = value.detach().numpy()
    np.savez(tmp_path / "w.npz", **arrays)
    np.savez(tmp_path / "m.npz", mean=np.full((3, 16, 128, 171), 100, np.float32))
    extract = c3d(str(tmp_path / "w.npz"), str(tmp_path / "m.npz"))
    video = videos(num=2, num_frames=16, size=50)
    with torch.no_grad():
        expected = extract.network(video / 127.5 - 1)
    assert (extract.dim, extract.frames) == (101, (16, 16))
    assert torch.allclose(extract(video), expected, atol=1e-4)


def _without_checksum(name):
    from lightning_mav.metrics import weights

    known = weights.registry() | {name: replace(weights.registry()[name], git_blob=(), sha256=())}
    return lambda: known
