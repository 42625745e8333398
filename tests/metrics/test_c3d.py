import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_mav.errors import CheckpointError
from lightning_mav.metrics.c3d import C3D, load_c3d, prepare
from lightning_mav.seeding import generator

LAYERS = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b", "fc6", "fc7", "fc8")
WIDTH, HIDDEN = 2, 8


@pytest.fixture
def arrays():
    """Random arrays under TGANv2's names, of a narrow network."""
    draw = generator("c3d")
    shapes = {name: tuple(value.shape) for name, value in C3D(WIDTH, HIDDEN).named_parameters()}
    names = {f"{layer}/{key}": f"{layer}.{kind}" for layer in LAYERS for key, kind in (("W", "weight"), ("b", "bias"))}
    return {key: (0.3 * torch.randn(shapes[name], generator=draw)).numpy() for key, name in names.items()}


@pytest.fixture
def mean_clip():
    return torch.randn(3, 1, 16, 128, 171, generator=generator("mean")).numpy()


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def reference(arrays, mean, video):
    """The same network from its definition: every pooling pads at the end, so that odd sizes lose nothing."""
    x = F.interpolate(video[0, [2, 1, 0]].transpose(0, 1), (112, 112), mode="bilinear", align_corners=True)
    x = (x * 128 + 128 - mean).transpose(0, 1)[None]
    for layer in LAYERS[:8]:
        x = F.conv3d(x, *(torch.from_numpy(arrays[f"{layer}/{key}"]) for key in "Wb"), padding=1).relu()
        if layer not in ("conv3a", "conv4a", "conv5a"):
            size = (1, 2, 2) if layer == "conv1a" else (2, 2, 2)
            odd = [n % k for n, k in zip(reversed(x.shape[2:]), reversed(size), strict=True)]
            x = F.max_pool3d(F.pad(x, [side for one in odd for side in (0, one)], value=-torch.inf), size)
    x = x.flatten(1)
    for layer in LAYERS[8:]:
        x = F.linear(x, *(torch.from_numpy(arrays[f"{layer}/{key}"]) for key in "Wb"))
        x = x if layer == "fc8" else x.relu()
    return x


def test_the_npz_files_are_loaded_and_the_logits_are_those_of_the_definition(tmp_path, arrays, mean_clip):
    model = load_c3d(saved(tmp_path / "w.npz", **arrays), saved(tmp_path / "m.npz", mean=mean_clip), WIDTH, HIDDEN)
    video = torch.rand(1, 3, 16, 40, 60, generator=generator("video")) * 2 - 1
    mean = torch.from_numpy(mean_clip)[:, 0, :, 8:120, 8:120].transpose(0, 1)
    with torch.no_grad():
        logits = model(video)
    expected = reference(arrays, mean, video)
    assert logits.shape == (1, 101)
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_the_published_size_has_the_published_shapes():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in C3D().named_parameters()}
    assert shapes["conv1a.weight"] == (64, 3, 3, 3, 3) and shapes["conv5b.weight"] == (512, 512, 3, 3, 3)
    assert shapes["fc6.weight"] == (4096, 8192) and shapes["fc8.bias"] == (101,)


def test_input_is_bgr_from_0_to_256_and_corners_stay_in_place():
    colours = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 16, 30, 40)
    assert torch.equal(prepare(colours)[0, :, 0, 0, 0], torch.tensor([256.0, 128.0, 0.0]))
    video = torch.rand(1, 3, 2, 30, 40, generator=generator(0)) * 2 - 1
    corner = prepare(video)[..., [0, -1], :][..., [0, -1]]
    assert torch.allclose(corner, video.flip(1)[..., [0, -1], :][..., [0, -1]] * 128 + 128, atol=1e-3)


def test_wrong_files_are_named(tmp_path, arrays, mean_clip):
    good, mean = saved(tmp_path / "w.npz", **arrays), saved(tmp_path / "m.npz", mean=mean_clip)
    with pytest.raises(CheckpointError, match=r"w.npz: conv1a/W should have the shape \(64, 3, 3, 3, 3\), found \(2, "):
        load_c3d(good, mean)
    lacking = saved(tmp_path / "lacking.npz", **{key: value for key, value in arrays.items() if key != "fc8/b"})
    with pytest.raises(CheckpointError, match=r"lacking.npz: fc8/b should have the shape \(101,\), found nothing"):
        load_c3d(lacking, mean, WIDTH, HIDDEN)
    with pytest.raises(CheckpointError, match=r"w.npz: holds no mean clip"):
        load_c3d(good, good, WIDTH, HIDDEN)
    (tmp_path / "damaged.npz").write_bytes(b"PK damaged")
    with pytest.raises(CheckpointError, match=r"damaged.npz: is no readable .npz file"):
        load_c3d(tmp_path / "damaged.npz", mean, WIDTH, HIDDEN)
