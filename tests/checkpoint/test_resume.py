import os

import pytest
import yaml

from lightning_mav.checkpoint.resume import RunFolder, differences
from lightning_mav.errors import CheckpointError, ConfigError, MachineError

CONFIG = {
    "seed_everything": 0,
    "trainer": {"max_steps": 10, "accelerator": "cpu", "accumulate_grad_batches": 1, "callbacks": None},
    "model": {"class_path": "X", "init_args": {"lr": 0.1, "network": {"class_path": "N", "init_args": {"width": 8}}}},
    "data": {"class_path": "D", "init_args": {"batch_size": 2, "num_workers": 0}},
}


def changed(section, **values):
    tree = {**CONFIG, section: {**CONFIG[section]}}
    target = "init_args" if "init_args" in tree[section] else None
    if target:
        tree[section][target] = {**tree[section][target], **values}
    else:
        tree[section] |= values
    return tree


@pytest.mark.parametrize(
    "other",
    [
        CONFIG,
        changed("trainer", max_steps=20, accelerator="gpu", callbacks=[{"class_path": "C"}], precision="bf16-mixed"),
        changed("data", num_workers=4, on_error="skip", skip_budget=3),
        changed("data", batch_size=4),  # the data module says whether the number of devices makes up for it
    ],
)
def test_length_logging_hardware_workers_and_what_happens_to_bad_samples_may_change(other):
    assert differences(CONFIG, other) == []


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        (changed("model", lr=0.2), "model.lr: 0.1 -> 0.2"),
        (changed("model", network={"class_path": "N", "init_args": {"width": 4}}), "model.network.width: 8 -> 4"),
        (changed("model", new=1), "model.new: None -> 1"),
        (changed("data", size=4), "data.size: None -> 4"),
        (changed("trainer", accumulate_grad_batches=2), "trainer.accumulate_grad_batches: 1 -> 2"),
        ({**CONFIG, "seed_everything": 1}, "seed_everything: 0 -> 1"),
    ],
)
def test_everything_else_is_shown(other, shown, tmp_path):
    assert differences(CONFIG, other) == [shown]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(ConfigError, match=r"start a new run with --model.init_from") as failure:
        RunFolder(tmp_path).check_unchanged(other)
    assert shown in str(failure.value)


def test_many_differences_are_cut_short_and_another_stage_is_named_alone(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(ConfigError, match="and 12 more; start a new run"):
        RunFolder(tmp_path).check_unchanged(changed("data", **{f"option{i}": i for i in range(20)}))
    other = {**changed("data", size=4), "model": {"class_path": "Y", "init_args": {"lr": 0.2}}}
    with pytest.raises(ConfigError, match=r"another kind: model.class_path: X -> Y; choose another --run") as failure:
        RunFolder(tmp_path).check_unchanged(other)
    assert "lr" not in str(failure.value)


def test_the_folders_are_made_and_what_a_killed_run_left_is_removed(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.prepare()
    (run.checkpoints / ".partial-abc").touch()
    (run.checkpoints / "step=000001.ckpt.sha256").touch()  # of a checkpoint that never got its name
    (run.checkpoints / "step=000002.ckpt").mkdir()  # not all of its files are there
    (run.checkpoints / "step=000002.ckpt" / "__0_0.distcp").touch()
    run.clear()
    assert os.listdir(run.checkpoints) == []
    assert sorted(os.listdir(run.path)) == ["checkpoints", "samples"]


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write to the run folder"):
        RunFolder(tmp_path / "file").prepare()


def test_the_lock_is_free_again_when_its_owner_ends(tmp_path):
    run = RunFolder(tmp_path)
    with run.lock(), pytest.raises(MachineError, match=f"in use by process {os.getpid()}"), run.lock():
        pass
    with run.lock():
        pass


def test_an_empty_run_has_no_newest(tmp_path):
    assert RunFolder(tmp_path).newest() is None
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        RunFolder(tmp_path).newest_or_fail()
