import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from lightning_mav.checkpoint import io
from lightning_mav.checkpoint.io import (
    SafeCheckpointIO,
    new_folder,
    read_checkpoint,
    write_atomically,
    write_checkpoint,
)
from lightning_mav.errors import CheckpointError, ConfigError, MachineError

STATE = {"state_dict": {"weight": torch.arange(600.0)}, "global_step": 3}


@pytest.fixture
def path(tmp_path):
    write_checkpoint(STATE, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_what_is_written_is_read(path):
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint["state_dict"]["weight"], STATE["state_dict"]["weight"])
    assert checkpoint["format"] == io.FORMAT


def test_permissions_are_those_of_an_ordinary_file(path):
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


@pytest.mark.row(41)
def test_marker_then_file_are_synced_before_and_after_each_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda number: (calls.append(os.readlink(f"/proc/self/fd/{number}")), fsync(number))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append(f"-> {Path(new).name}"), replace(old, new)))
    write_checkpoint(STATE, tmp_path / "a.ckpt")
    steps = [Path(call).name[:9] if Path(call).name.startswith(".partial-") else call for call in calls]
    folder = str(tmp_path)
    assert steps == [".partial-", "-> a.ckpt.sha256", folder, ".partial-", "-> a.ckpt", folder]


def test_a_failed_write_leaves_the_old_file_and_no_rest(path):
    before = path.read_bytes()

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match=r"cannot write .*a\.ckpt"):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.sha256"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write"):
        write_checkpoint(STATE, tmp_path / "file" / "a.ckpt")


def test_a_folder_has_its_name_only_when_all_of_it_is_there(tmp_path):
    with new_folder(tmp_path / "new" / "out") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "new" / "out").exists()
    assert os.listdir(tmp_path / "new") == ["out"] and os.listdir(tmp_path / "new" / "out") == ["a"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "new" / "out").stat().st_mode


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError(), KeyboardInterrupt()])
def test_a_folder_that_fails_leaves_no_rest(tmp_path, failure):
    wanted = MachineError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(wanted), new_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise failure
    assert not os.listdir(tmp_path)


def test_what_is_there_is_never_replaced(tmp_path):
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="is there already"), new_folder(taken):
            raise AssertionError("nothing may be written")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("url", ["https://example.org/a.ckpt", "s3://bucket/a.ckpt", "hf://a/b"])
def test_urls_are_refused(url):
    with pytest.raises(CheckpointError, match="local files only"):
        read_checkpoint(url)


@pytest.mark.parametrize("content", [b"", b"text, not weights", b"PK\x03\x04", bytes(4000)])
def test_what_is_no_checkpoint_is_one_line_with_its_name(tmp_path, content):
    (tmp_path / "bad.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: not a readable checkpoint") as failure:
        read_checkpoint(tmp_path / "bad.ckpt")
    assert "\n" not in str(failure.value)


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in random.Random(0).sample(range(len(whole) - 1), 60):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.ckpt"):
            read_checkpoint(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.ckpt"):
        with pytest.raises(CheckpointError, match=f"{path.name}: no such checkpoint file"):
            read_checkpoint(path)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("was_run",)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.row(52)
def test_pickled_code_never_runs(tmp_path, monkeypatch, forced):
    monkeypatch.chdir(tmp_path)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {}, "x": Malicious()}, "zip.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Malicious()))
    for name in ("zip.ckpt", "raw.ckpt"):
        with pytest.raises(CheckpointError, match=name):
            SafeCheckpointIO("DecoderStage").load_checkpoint(name, weights_only=False)
    assert not (tmp_path / "was_run").exists()


def test_weights_without_training_state_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.ckpt")
    with pytest.raises(CheckpointError, match="init_from"):
        read_checkpoint(tmp_path / "weights.ckpt")


def test_the_stage_travels_with_the_file(tmp_path):
    SafeCheckpointIO("PriorStage").save_checkpoint(STATE, tmp_path / "a.ckpt")
    assert SafeCheckpointIO("PriorStage").load_checkpoint(tmp_path / "a.ckpt")["global_step"] == 3
    with pytest.raises(CheckpointError, match="is a checkpoint of stage PriorStage, expected DecoderStage"):
        SafeCheckpointIO("DecoderStage").load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.row(55)
def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "FORMAT", 9)
    write_checkpoint(STATE, tmp_path / "a.ckpt")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 9 is newer"):
        read_checkpoint(tmp_path / "a.ckpt")
