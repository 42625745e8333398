import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from lightning_mav.checkpoint.foreign import read_foreign
from lightning_mav.errors import CheckpointError

TENSORS = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.float16)}


def same(found):
    return set(found) == set(TENSORS) and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_every_kind_of_file_gives_its_tensors(tmp_path):
    torch.save(TENSORS, tmp_path / "raw.pt")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": TENSORS, "epoch": 3}, tmp_path / "lightning.ckpt")
    save_file(TENSORS, tmp_path / "x.safetensors")
    for name in ("raw.pt", "old.pth", "lightning.ckpt", "x.safetensors"):
        assert same(read_foreign(tmp_path / name)), name
    torch.save((torch.zeros(3), torch.ones(3)), tmp_path / "stats.th")
    assert list(read_foreign(tmp_path / "stats.th")) == ["0", "1"]


def test_a_sharded_folder_is_one_table_and_a_missing_shard_is_named(tmp_path):
    for i, key in enumerate(TENSORS):
        save_file({key: TENSORS[key]}, tmp_path / f"model-{i}.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.fp16.safetensors")
    index = {"weight_map": {key: f"model-{i}.safetensors" for i, key in enumerate(TENSORS)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(read_foreign(tmp_path))
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-1\.safetensors, which model\.safetensors\.index\.json"):
        read_foreign(tmp_path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize("name", ["empty.pt", "text.ckpt", "cut.pt", "cut.safetensors", "text.safetensors"])
def test_damaged_files_are_named(tmp_path, name):
    torch.save(TENSORS, tmp_path / "whole.pt")
    save_file(TENSORS, tmp_path / "whole.safetensors")
    content = {
        "empty.pt": b"",
        "text.ckpt": b"not a checkpoint\n",
        "cut.pt": (tmp_path / "whole.pt").read_bytes()[:500],
        "cut.safetensors": (tmp_path / "whole.safetensors").read_bytes()[:90],
        "text.safetensors": b"hello",
    }
    (tmp_path / name).write_bytes(content[name])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        read_foreign(tmp_path / name)


@pytest.mark.row(52)
def test_code_is_never_run_and_other_things_are_refused(tmp_path):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"state_dict": {"a": Evil()}}, tmp_path / "evil.ckpt")
    for name in ("evil.pt", "evil.ckpt"):
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            read_foreign(tmp_path / name)
    torch.save({"a": 3}, tmp_path / "numbers.pt")
    with pytest.raises(CheckpointError, match="holds no plain table of weights"):
        read_foreign(tmp_path / "numbers.pt")
    with pytest.raises(CheckpointError, match="no such file or folder"):
        read_foreign(tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match="no weights there"):
        read_foreign(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
@pytest.mark.parametrize("text", ["<!doctype html>\n<html>", "version https://git-lfs.github.com/spec/v1\nsize 3\n"])
def test_a_web_page_and_a_pointer_are_called_text(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=r"is text .* fetch the file itself"):
        read_foreign(tmp_path / name)


@pytest.mark.parametrize("text", ['{"weight_map', "[]", '{"weight_map": 3}', "{}"])
def test_a_damaged_index_is_named(tmp_path, text):
    save_file(TENSORS, tmp_path / "model-0.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: truncated, or no index"):
        read_foreign(tmp_path)


def test_a_refused_pickle_gives_no_warning(tmp_path, recwarn):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=4))
    with pytest.raises(CheckpointError, match="is not run"):
        read_foreign(tmp_path / "evil.pt")
    assert not recwarn
