"""Folders of sharded checkpoints: what is written is read, and reading them runs nothing."""

import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo

from lightning_mav.checkpoint.io import commit_folder, read_checkpoint, write_meta
from lightning_mav.checkpoint.sharded import write_shards
from lightning_mav.errors import CheckpointError, MachineError

MOMENTS = {
    "state": {"model.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 2)}},
    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "foreach": True, "params": ["model.weight"]}],
}
STATE = {"state_dict": {"model.weight": torch.arange(8.0).view(4, 2), "ema.n": torch.tensor(3)}, "optimizer_0": MOMENTS}

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def write(folder, state=STATE, rest=None):
    write_shards(state, folder)
    write_meta({"global_step": 3, "stage": "ToyStage"} if rest is None else rest, folder)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoints") / "step=000003.ckpt")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / written.name)


class Touch:
    """What a pickle of it would do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.__class__.touch, (self.path,)


def test_what_is_written_is_read_as_from_a_file(folder):
    checkpoint = read_checkpoint(folder, "ToyStage")
    assert checkpoint["global_step"] == 3 and checkpoint["format"] == 1
    assert all(torch.equal(checkpoint["state_dict"][key], value) for key, value in STATE["state_dict"].items())
    (moments,) = checkpoint["optimizer_states"]
    assert moments["param_groups"] == MOMENTS["param_groups"]
    assert torch.equal(moments["state"]["model.weight"]["exp_avg"], torch.ones(4, 2))


def test_weights_can_be_read_without_moments_and_without_values(folder):
    assert read_checkpoint(folder, optimizer=False)["optimizer_states"] == []
    for part in folder.glob("*.distcp"):
        part.unlink()
    weight = read_checkpoint(folder, map_location="meta")["state_dict"]["model.weight"]
    assert weight.is_meta and weight.shape == (4, 2)


def test_the_list_of_parts_runs_no_code(folder, tmp_path):
    (folder / ".metadata").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match=r"\.metadata: not readable \(it names .*no part of a checkpoint"):
        read_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


def test_neither_do_values_and_what_is_in_no_shard(folder, tmp_path):
    harm = Touch(tmp_path / "ran")
    poisoned = write(tmp_path / "a.ckpt", STATE | {"optimizer_0": {"param_groups": [{"lr": harm}]}})
    with pytest.raises(CheckpointError, match=r"a\.ckpt: not readable"):
        read_checkpoint(poisoned)
    with pytest.raises(CheckpointError, match=r"holds more than tensors"):
        read_checkpoint(write(tmp_path / "b.ckpt", rest={"callbacks": harm}))
    assert not (tmp_path / "ran").exists()


def test_parts_lie_in_the_folder(folder, tmp_path):
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for key, part in metadata.storage_data.items():
        metadata.storage_data[key] = _StorageInfo(f"../{part.relative_path}", part.offset, part.length)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=r"it points to \.\./"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "meta.pt"])
@pytest.mark.parametrize("rest", [b"", b"text", None])
def test_a_damaged_or_missing_part_is_one_line_that_names_the_checkpoint(folder, name, rest):
    (folder / name).unlink() if rest is None else (folder / name).write_bytes(rest)
    with pytest.raises(CheckpointError, match=r"step=000003\.ckpt.*(not readable|not a readable|no such)") as error:
        read_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_flipped_bits_are_caught_by_the_marker(folder):
    commit_folder(folder)
    assert read_checkpoint(folder)["global_step"] == 3
    part = folder / "__0_0.distcp"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp: damaged"):
        read_checkpoint(folder)


def test_another_stage_is_refused(folder):
    with pytest.raises(CheckpointError, match="is a checkpoint of stage ToyStage, expected PriorStage"):
        read_checkpoint(folder, "PriorStage")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match=r"cannot write .*file/a\.ckpt") as error:
        write_shards(STATE, tmp_path / "file" / "a.ckpt")
    assert "\n" not in str(error.value)
