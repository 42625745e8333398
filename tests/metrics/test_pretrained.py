from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from lightning_mav.errors import CheckpointError
from lightning_mav.metrics import pretrained, weights
from lightning_mav.metrics.c3d import C3D, load_c3d
from lightning_mav.metrics.frechet import frechet_distance_of_features
from lightning_mav.metrics.i3d import I3D
from lightning_mav.metrics.inception_score import score
from lightning_mav.metrics.pretrained import c3d, c3d_torchscript, i3d, i3d_torchscript, inception, videomae
from lightning_mav.seeding import generator


def videos(num=4, num_frames=9, size=20, key=0):
    shape = (num, 3, num_frames, size, size)
    return torch.randint(0, 256, shape, generator=generator(key), dtype=torch.uint8)


def accept_any_file(monkeypatch, name):
    known = weights.registry() | {name: replace(weights.registry()[name], git_blob=(), sha256=())}
    monkeypatch.setattr("lightning_mav.metrics.weights.registry", lambda: known)


def test_i3d_loads_its_published_layout_by_path_and_refuses_another(tmp_path, monkeypatch):
    accept_any_file(monkeypatch, "i3d")
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
    monkeypatch.setattr(pretrained, "load_c3d", lambda weights, mean: load_c3d(weights, mean, **narrow))
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


class _Script(nn.Module):
    """What StyleGAN-V's files take: 8-bit frames and options."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        y = x.float() / 255 if rescale and resize and return_features else x.float()
        return y.mean((2, 3, 4)).repeat(1, 134)[:, :400]


def test_torchscript_gets_8_bit_frames_and_its_options_and_runs_only_when_trusted(tmp_path):
    torch.jit.script(_Script()).save(str(tmp_path / "net.pt"))
    with pytest.raises(CheckpointError, match=r"net.pt: is not i3d_torchscript: expected git blob 93daef59"):
        i3d_torchscript(str(tmp_path / "net.pt"), trust=True)
    with pytest.raises(CheckpointError, match=r"loading TorchScript runs its code.*set trust=true"):
        c3d_torchscript(str(tmp_path / "net.pt"))
    extract = c3d_torchscript(str(tmp_path / "net.pt"), trust=True)
    clip = videos(num_frames=16)
    assert torch.allclose(extract(clip)[:, :3], clip.float().mean((2, 3, 4)))
    assert extract.frames == (16, 16)


def test_i3d_torchscript_is_asked_for_resized_and_rescaled_logits(tmp_path, monkeypatch):
    accept_any_file(monkeypatch, "i3d_torchscript")
    torch.jit.script(_Script()).save(str(tmp_path / "net.pt"))
    extract = i3d_torchscript(str(tmp_path / "net.pt"), trust=True)
    assert extract(videos()).shape == (4, 400)
    assert torch.allclose(extract(videos())[:, :3], videos().float().mean((2, 3, 4)) / 255)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in the published layout, calibrated: untouched ones hardly look at the image."""
    path = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        network = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=str(path))
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(videos(num=8, num_frames=1, size=64)[:, :, 0])
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def picture_folders(tmp_path_factory):
    """Two folders of pictures that are not square."""
    folders = []
    for key in ("real", "fake"):
        folder = tmp_path_factory.mktemp(key)
        coarse = torch.rand(6, 3, 5, 4, generator=generator(key))
        large = nn.functional.interpolate(coarse, (40, 52), mode="bilinear")
        for i, image in enumerate((large * 255).to(torch.uint8)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        folders.append(folder)
    return folders


def _pictures(folder: Path):
    return torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in sorted(folder.glob("*.png"))])


def test_fid_and_is_of_pictures_equal_torch_fidelitys(inception_file, picture_folders, monkeypatch):
    accept_any_file(monkeypatch, "inception")
    theirs = calculate_metrics(
        input1=str(picture_folders[1]), input2=str(picture_folders[0]), cuda=False, fid=True, isc=True, isc_splits=1,
        feature_extractor_weights_path=str(inception_file), cache=False, verbose=False, samples_shuffle=False,
    )  # fmt: skip
    real, fake = (_pictures(folder).permute(0, 3, 1, 2)[:, :, None] for folder in picture_folders)
    features = [inception(str(inception_file))(x) for x in (real, fake)]
    logits = inception(str(inception_file), "logits_unbiased")(fake)
    assert frechet_distance_of_features(*features) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert score(logits) == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert theirs["frechet_inception_distance"] > 1


def test_a_file_that_is_not_inception_is_refused(tmp_path, monkeypatch):
    accept_any_file(monkeypatch, "inception")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth: no weights of Inception"):
        inception(str(tmp_path / "other.pth"))


@pytest.fixture(scope="module")
def videomae_folder(tmp_path_factory):
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, num_labels=5, use_mean_pooling=True,
    )  # fmt: skip
    model = VideoMAEForVideoClassification(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    folder = tmp_path_factory.mktemp("videomae")
    model.save_pretrained(folder)
    return folder, model.eval()


def test_videomae_pools_the_tokens_before_the_classifier(videomae_folder):
    folder, model = videomae_folder
    extract = videomae(str(folder))
    clip = videos(num_frames=4, size=16)
    with torch.no_grad():
        logits = model(clip.transpose(1, 2).float() / 255).logits
        assert torch.allclose(model.classifier(extract(clip)), logits, atol=1e-5)
    assert (extract.dim, extract.frames) == (24, (4, 4))


def test_videomaes_biases_of_queries_and_values_are_really_loaded(videomae_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = videomae_folder
    state = load_file(folder / "model.safetensors")
    biases = [name for name in state if name.endswith(("q_bias", "v_bias", "query.bias", "value.bias"))]
    assert len(biases) == 4
    clip = videos(num_frames=4, size=16)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(state | {name: torch.zeros_like(state[name]) for name in biases}, tmp_path / "model.safetensors")
    assert (videomae(str(tmp_path))(clip) - videomae(str(folder))(clip)).abs().max() > 1e-3
    published = {_old_name(name): value for name, value in state.items()}
    save_file(published, tmp_path / "model.safetensors")
    assert torch.allclose(videomae(str(tmp_path))(clip), videomae(str(folder))(clip), atol=1e-6)


def _old_name(name):
    """Return the name that published checkpoints use for the two biases."""
    return name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")


def test_an_incomplete_videomae_is_refused(videomae_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"needs config.json and model.safetensors of a VideoMAE"):
        videomae(str(tmp_path))
