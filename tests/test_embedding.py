"""Embeddings on the disk are those that CLIP gives, and the prior trains on them as it does on the images."""

import os

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.checkpoint.models import save_model
from lightning_mav.data.embeddings import EmbeddedImages, read_record
from lightning_mav.data.images import open_images
from lightning_mav.embedding import embed
from lightning_mav.errors import ConfigError, DataError
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.stages.prior import PriorDataModule


def untrained_clip(folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_model(Clip(ClipConfig(SmallClipConfig(8, 16, (8, 16), text_width=16, text_heads=2))), folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return untrained_clip(tmp_path_factory.mktemp("clip"), 0)


@pytest.fixture(scope="module")
def embedded(clip, image_folder, tmp_path_factory):
    """The embeddings of the eight images, three to a shard."""
    folder = tmp_path_factory.mktemp("embedded")
    words = ["--size", "16", "--batch_size", "2", "--samples_per_shard", "3", "--num_workers", "0", "--device", "cpu"]
    assert main(["data", "embed", "--source", str(image_folder), "--clip", clip, "--out", str(folder), *words]) == 0
    return folder


def test_shards_hold_what_clip_says(clip, image_folder, embedded):
    encoder, num = load_clip(clip), 0
    for split in ("train", "val"):
        source, stored = open_images(str(image_folder), split, 16), EmbeddedImages(str(embedded), split)
        module = PriorDataModule(clip, source=str(image_folder), size=16)
        images = module.dataset(split)
        assert len(stored) == len(source)
        for i in range(len(source)):
            sample = stored[i, 100 + i]
            assert (sample["caption"], sample["index"], sample["position"]) == (source.caption(i), i, 100 + i)
            wanted = encoder.encode_image(images[i, 0]["image"][None])[0]
            assert torch.allclose(sample["image_embedding"], wanted, atol=1e-5)
            num += 1
    assert num == 8 and len(list(embedded.glob("*.safetensors"))) == 4


def test_the_prior_gets_the_same_batches_as_from_the_images(clip, image_folder, embedded):
    batches = []
    for source in (image_folder, embedded):
        data = PriorDataModule(clip, source=str(source), size=16, batch_size=4, statistics_samples=8)
        data.setup("fit")
        loader = DataLoader(data.dataset("train"), batch_sampler=[[(0, 0), (5, 1)], [(3, 2), (1, 3)]])
        batches.append([data.on_after_batch_transfer(batch, 0) for batch in loader])
        batches[-1].append(dict(zip(("mean", "std"), data.statistics(torch.device("cpu")), strict=True)))
    for encoded, stored in zip(*batches, strict=True):
        assert stored.keys() == encoded.keys() - {"image"}
        for name, value in stored.items():
            if isinstance(value, torch.Tensor):
                assert torch.allclose(value.float(), encoded[name].float(), atol=1e-5)
            else:
                assert value == encoded[name]


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(clip, image_folder, embedded, tmp_path):
    again = {"clip": load_clip(clip), "out": tmp_path, "size": 16, "batch_size": 2, "samples_per_shard": 3}
    embed(str(image_folder), **again)
    shards = {path.name: path.read_bytes() for path in embedded.glob("*.safetensors")}
    os.remove(tmp_path / "train-00001.safetensors")
    with pytest.raises(DataError, match=r"train-00001\.safetensors: missing, of 3 shards; run data embed again"):
        EmbeddedImages(str(tmp_path), "train")
    kept = (tmp_path / "train-00000.safetensors").stat().st_mtime_ns
    embed(str(image_folder), **again)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == shards
    assert (tmp_path / "train-00000.safetensors").stat().st_mtime_ns == kept
    with pytest.raises(DataError, match="holds embeddings of other images"):
        embed("moving_shapes", **again)


def test_embeddings_of_another_clip_are_refused(embedded, clip, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.clip: the embeddings in .* are of another CLIP"):
        PriorDataModule(untrained_clip(tmp_path, 1), source=str(embedded)).setup("fit")
    with pytest.raises(ConfigError, match=r"data\.augment: crop, but .* holds embeddings"):
        PriorDataModule(clip, source=str(embedded), augment="crop").setup("fit")


def test_damaged_embeddings_are_named(embedded, tmp_path):
    for path in embedded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 100 if path.name == "val-00000.safetensors" else None])
    with pytest.raises(DataError, match=r"val-00000\.safetensors: damaged"):
        EmbeddedImages(str(tmp_path), "val")[0, 0]
    (tmp_path / "embeddings.json").write_text("{")
    with pytest.raises(DataError, match=r"embeddings\.json: damaged"):
        read_record(tmp_path)
