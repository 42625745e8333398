"""A decoder trains on videos of several aspects and lengths, and goes on bit for bit."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.data.index import build
from lightning_mav.data.writing import write_mp4

SHAPES = {(6, 8, 8), (3, 8, 8), (6, 4, 12), (3, 4, 12)}
SIZES = [(12, 24, 24), (4, 24, 24), (12, 12, 36), (5, 12, 36)]  # of videos, one for each shape
KINDS = ("SampleGrid", "VideoMetrics")
SEEN = []


class Seen(Callback):
    """Notes the batches that a training sees."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        SEEN.append((tuple(batch["video"].shape[2:]), batch["index"].tolist(), batch["position"].tolist()))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixteen videos of four kinds, and where their manifest is."""
    folder = tmp_path_factory.mktemp("mixed")
    draw = torch.Generator().manual_seed(0)
    for i in range(16):
        frames = torch.randint(256, (*SIZES[i % 4], 3), generator=draw, dtype=torch.uint8)
        write_mp4(folder / f"{i:02d}.mp4", frames, 10)
    manifest = folder / "manifest.jsonl"
    build(str(folder), manifest, 1, 60.0, 1)
    return manifest


@pytest.fixture
def fit_buckets(fit, manifest):
    """Return a function that trains in a run folder for some steps, and returns what it saw."""

    def run(folder, steps, *options):
        SEEN.clear()
        buckets = json.dumps({"aspects": [1, 3], "lengths": [3, 6], "multiple": 4})
        words = ["--data.source", manifest, "--data.val_source", manifest, "--data.buckets", buckets]
        words += ["--trainer.max_steps", steps, "--trainer.callbacks", f"{__name__}.Seen"]
        assert fit(folder, *words, *options) == 0
        return list(SEEN)

    return run


def test_every_shape_is_trained_and_a_stopped_run_goes_on_with_the_same_batches(fit_buckets, tmp_path):
    whole = fit_buckets(tmp_path / "whole", 12)
    assert {shape for shape, _, _ in whole} == SHAPES
    assert fit_buckets(tmp_path / "parts", 5) + fit_buckets(tmp_path / "parts", 12) == whole
    one, other = (read_checkpoint(newest_checkpoint(tmp_path / run))["state_dict"] for run in ("whole", "parts"))
    assert all(value.equal(other[name]) for name, value in one.items())


def sampling(kind):
    return json.dumps({"class_path": f"callbacks.{kind}", "init_args": {"every_n_steps": 2, "num_samples": 3}})


def test_samples_during_training_are_of_the_shape_that_the_model_makes(fit_buckets, tmp_path):
    fit_buckets(tmp_path / "run", 4, *(word for kind in KINDS for word in ("--trainer.callbacks+", sampling(kind))))
    assert len(list((tmp_path / "run" / "samples").glob("step=000004.*"))) == 2


def test_a_bad_sample_is_replaced_by_one_of_its_shape(fit_buckets, manifest, tmp_path):
    bad = manifest.parent / "02.mp4"
    sound = bad.read_bytes()
    bad.write_bytes(sound[:-300] + bytes(300))
    try:
        grid = ["--trainer.callbacks+", sampling("SampleGrid")]
        seen = fit_buckets(tmp_path / "run", 12, "--data.on_error", "skip", *grid)
    finally:
        bad.write_bytes(sound)
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "val"} and all("02.mp4" in row["name"] for row in rows)
    assert all(rows[0]["index"] not in indices for _, indices, _ in seen)
    assert (tmp_path / "run" / "samples" / "step=000012.png").exists()
    assert {shape for shape, _, _ in seen} == SHAPES


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.buckets", "{aspects: [1, 2]}"], "data.buckets: moving_shapes has no manifest"),
        (["--data.buckets", "{aspects: [-1]}"], "data.buckets: expected aspects, lengths and multiple above 0"),
        (["--data.buckets", "{lengths: [4, 8]}"], "data.buckets.lengths: [4, 8], but data.frames is 3"),
    ],
)
def test_buckets_that_cannot_be_are_refused(fit, tmp_path, capsys, options, said):
    assert fit(tmp_path / "run", *options) == 2
    assert said in capsys.readouterr().err
