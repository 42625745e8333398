import pytest

from lightning_mav.checkpoint.resolve import newest_checkpoint, resolve_model
from lightning_mav.errors import CheckpointError


def make_run(path, *steps):
    (path / "checkpoints").mkdir(parents=True)
    for step in steps:
        for suffix in ("ckpt", "ckpt.sha256"):
            (path / "checkpoints" / f"step={step:06d}.{suffix}").touch()
    return path


def make_model(path):
    path.mkdir(parents=True)
    (path / "config.json").touch()
    (path / "model.safetensors").touch()
    return path


def test_newest_is_the_one_with_the_most_steps(tmp_path):
    run = make_run(tmp_path / "run", 999_999, 1_000_000, 5)
    assert newest_checkpoint(run).name == "step=1000000.ckpt"
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(make_run(tmp_path / "empty")) is None


def test_what_has_no_marker_does_not_count(tmp_path):
    run = make_run(tmp_path / "run", 3)
    (run / "checkpoints" / "step=000004.ckpt").mkdir()  # a folder that is still being written
    (run / "checkpoints" / "step=000005.ckpt").touch()
    assert newest_checkpoint(run).name == "step=000003.ckpt"
    (run / "checkpoints" / "step=000003.ckpt.sha256").unlink()
    with pytest.raises(CheckpointError, match=r"step=000005\.ckpt: has no \.sha256 beside it, as older versions"):
        newest_checkpoint(run)


def test_every_kind_is_recognised(tmp_path):
    run = make_run(tmp_path / "demo" / "prior", 3)
    model = make_model(tmp_path / "demo" / "decoder")
    checkpoint = run / "checkpoints" / "step=000003.ckpt"
    assert (resolve_model(run).kind, resolve_model(run).path, resolve_model(run).run) == ("checkpoint", checkpoint, run)
    assert resolve_model(checkpoint) == resolve_model(run)
    assert (resolve_model(model).kind, resolve_model(model).path) == ("model", model)
    assert (resolve_model(tmp_path / "demo").kind, resolve_model(tmp_path / "demo").path) == (
        "pipeline",
        tmp_path / "demo",
    )


def test_nothing_found_names_the_path_and_what_was_looked_for(tmp_path):
    (tmp_path / "other.bin").touch()
    with pytest.raises(CheckpointError, match=r"holds no model; looked for checkpoints/step"):
        resolve_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"none: no such file or folder"):
        resolve_model(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"other\.bin: not a \.ckpt file"):
        resolve_model(tmp_path / "other.bin")
