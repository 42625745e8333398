"""The training command line, driven by a toy stage: run folder, exact resume, signals, and errors of one line."""

import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from lightning_mav.__main__ import main
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.checkpoint.resume import flat
from lightning_mav.errors import CheckpointError, NumericError
from lightning_mav.models.base import Objective
from lightning_mav.stages.base import Stage
from lightning_mav.stages.data_module import StageDataModule


class ToyModel(nn.Module):
    config = None
    objective = Objective()

    def __init__(self, width):
        super().__init__()
        self.network = nn.Linear(4, width)

    def loss(self, batch, noise, timestep):
        return {"loss": (self.network(batch["video"]) - noise).pow(2).mean(1) + 0 * timestep}


class ToyStage(Stage):
    def __init__(
        self, width: int = 4, lr: float = 1e-2, init_from: str | None = None, event: str = "none", at: int = -1
    ):
        super().__init__(ToyModel(width), lr=lr)
        self.event, self.at = event, at
        if event == "missing file":
            raise CheckpointError("x.ckpt: cannot be read; fetch it again") from OSError("no such file")

    def training_step(self, batch, batch_idx):
        if batch_idx == self.at:
            self.happen()
        return super().training_step(batch, batch_idx)

    def happen(self):
        if self.event == "nan":
            raise NumericError("loss is not finite at step 3; lower model.lr")
        if self.event == "bug":
            raise ZeroDivisionError("a bug")
        if self.event == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory\nsecond line")
        if self.event != "none":
            os.kill(os.getpid(), getattr(signal, self.event))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["model"] = {"model": "toy"}


class OtherToyStage(ToyStage):
    pass


class ToySamples(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, pair):
        index, position = pair
        return {"video": torch.full((4,), index / 7), "index": index, "position": position}


class ToyData(StageDataModule):
    def dataset(self, split):
        return ToySamples()


CONFIG = {
    "model": {"class_path": "ToyStage"},
    "data": {"class_path": "ToyData", "init_args": {"batch_size": 2}},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 8, "enable_progress_bar": False}
    | {"enable_model_summary": False, "logger": False, "limit_val_batches": 0},
}


@pytest.fixture(autouse=True)
def command_line(monkeypatch, tmp_path):
    """Give every test an empty working folder that holds toy.yaml."""
    monkeypatch.setattr("sys.argv", ["lightning_mav"])
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))


def fit(*more, run="run"):
    return main(["fit", "--config", "toy.yaml", "--run", run, *more])


def steps(run="run"):
    return sorted(path.name for path in Path(run, "checkpoints").iterdir())


def weights(run="run"):
    return read_checkpoint(newest_checkpoint(run))


def same(a, b):
    """Compare two nested states bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def in_child(action):
    """Run ``action`` in a forked child and return its exit status; negative for a signal."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    torch.set_num_threads(1)
    os._exit(action())


def only_line(capsys):
    """Return the one line of stderr that is an error; nothing like a traceback stands beside it."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Seed set")]
    assert len([line for line in lines if line.startswith("error: ")]) == 1, lines
    assert not any("Traceback" in line for line in lines)
    return next(line for line in lines if line.startswith("error: "))


# the run folder


def test_a_run_is_one_folder(capsys):
    assert fit("--checkpoint_every", "3", "--trainer.logger", "true") == 0
    assert sorted(os.listdir("run")) == [".lock", "checkpoints", "config.yaml", "logs", "samples"]
    kept = ["step=000006.ckpt", "step=000006.ckpt.sha256", "step=000008.ckpt", "step=000008.ckpt.sha256"]
    assert steps() == ["last.ckpt", *kept]
    assert os.path.samefile("run/checkpoints/last.ckpt", "run/checkpoints/step=000008.ckpt")
    assert any("tfevents" in name for name in os.listdir("run/logs"))
    assert weights()["stage"] == "ToyStage"


def test_the_bar_counts_steps_and_the_end_says_where_the_results_lie(capsys):
    assert fit("--trainer.enable_progress_bar", "true", "--trainer.logger", "true") == 0
    shown = capsys.readouterr()
    assert "training: " in shown.err + shown.out
    assert "v_num" not in shown.err + shown.out
    assert "step 8 reached; run holds checkpoints/, samples/ and logs/" in shown.out


@pytest.mark.row(11)
def test_a_finished_run_says_so_and_a_longer_one_resumes(capsys):
    assert fit() == 0
    assert fit() == 0
    assert "nothing to do: step 8 >= 8" in capsys.readouterr().out
    assert main(["fit", "--run", "run", "--trainer.max_steps", "10"]) == 0  # the run knows its own config
    assert "resuming run at step 8" in capsys.readouterr().out
    assert weights()["global_step"] == 10


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_stop_and_resume_is_bit_exact(accumulate):
    length = ["--trainer.accumulate_grad_batches", accumulate, "--trainer.max_steps"]
    assert fit(*length, "7", run="whole") == 0
    for step in ("3", "4", "7"):
        assert fit(*length, step, run="parts") == 0
    whole, parts = weights("whole"), weights("parts")
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert same(whole[part], parts[part]), part


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_sigkill_and_run_again_is_bit_exact(accumulate):
    options = ["--trainer.accumulate_grad_batches", accumulate, "--checkpoint_every", "2", "--data.num_workers", "0"]
    killed = [*options, "--model.event", "SIGKILL", "--model.at"]
    assert in_child(lambda: fit(*killed, "5", run="killed")) == -signal.SIGKILL
    assert in_child(lambda: fit(*killed, "5", run="whole")) == -signal.SIGKILL  # the same settings, but
    assert newest_checkpoint("killed") is not None
    for run in ("killed", "whole"):
        config = yaml.safe_load(Path(run, "config.yaml").read_text())
        config["model"]["init_args"]["event"] = "none"
        Path(run, "config.yaml").write_text(yaml.safe_dump(config))
    for checkpoint in Path("whole", "checkpoints").iterdir():  # this one starts anew
        checkpoint.unlink()
    assert main(["fit", "--run", "killed"]) == main(["fit", "--run", "whole"]) == 0
    assert same(weights("whole")["state_dict"], weights("killed")["state_dict"])
    assert same(weights("whole")["optimizer_states"], weights("killed")["optimizer_states"])


def test_changed_hyper_parameters_are_refused_with_the_difference(capsys):
    assert fit() == 0
    assert fit("--model.lr", "0.5", "--trainer.max_steps", "9") == 2
    assert "model.lr: 0.01 -> 0.5; start a new run with --model.init_from run" in only_line(capsys)
    assert fit("--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "9") == 2
    assert fit("--trainer.max_steps", "9", "--data.num_workers", "0", "--trainer.log_every_n_steps", "1") == 0


def spoil(path):
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.row(53)
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_run_goes_on_from_the_one_before(capsys):
    assert fit("--checkpoint_every", "3") == fit(run="whole") == 0
    spoil(Path("run/checkpoints/step=000008.ckpt"))
    assert main(["validate", "--run", "run"]) == 4
    assert "step=000008.ckpt: damaged, its sha256 is not the one in step=000008.ckpt.sha256" in only_line(capsys)
    assert fit("--checkpoint_every", "3") == 0
    shown = capsys.readouterr().out
    assert "step=000008.ckpt: damaged, its sha256 differs; set aside" in shown
    assert "resuming run at step 6" in shown
    assert "step=000008.ckpt.damaged" in steps()
    assert same(weights("whole")["state_dict"], weights()["state_dict"])


@pytest.mark.row(53)
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(capsys):
    fit("--checkpoint_every", "3")
    for path in Path("run", "checkpoints").glob("step=*.ckpt"):
        spoil(path)
    assert fit("--trainer.max_steps", "9") == 4
    assert "run: none of its 2 checkpoints is whole; choose another --run" in only_line(capsys)


@pytest.mark.row(55)
def test_checkpoints_of_a_version_without_checksums_are_refused_with_the_command_that_adds_one(capsys):
    fit()
    for marker in Path("run", "checkpoints").glob("*.sha256"):
        marker.unlink()
    assert fit("--trainer.max_steps", "9") == 4
    command = only_line(capsys).partition("if you trust the file: ")[2]
    assert os.waitstatus_to_exitcode(os.system(command)) == 0
    assert fit("--trainer.max_steps", "9") == 0


@pytest.mark.row(10)
@pytest.mark.parametrize("word", ["last", "best", "hpc"])
def test_lightnings_words_for_a_checkpoint_are_refused(word, capsys):
    assert fit("--ckpt_path", word) == 2
    assert f"ckpt_path: '{word}' is not looked for; name a file, or --run FOLDER to resume" in only_line(capsys)


def test_other_commands_load_the_newest_checkpoint(capsys):
    fit()
    assert main(["validate", "--run", "run", "--trainer.limit_val_batches", "1"]) == 0
    assert "using run/checkpoints/step=000008.ckpt" in capsys.readouterr().out
    assert main(["validate", "--config", "toy.yaml", "--run", "empty"]) == 4
    assert "empty: holds no checkpoint" in only_line(capsys)


def test_the_command_line_wins_over_the_checkpoint():
    """Trap T1: Lightning would build the model from the checkpoint's hyper-parameters."""
    fit()
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    torch.save(checkpoint | {"hyper_parameters": {"_class_path": "ToyStage", "width": 3}}, "other.ckpt")
    assert main(["validate", "--config", "toy.yaml", "--ckpt_path", "other.ckpt"]) == 0


@pytest.mark.row(54)
def test_a_checkpoint_of_another_stage_is_refused(capsys):
    fit()
    path = str(newest_checkpoint("run"))
    assert main(["validate", "--config", "toy.yaml", "--model", "OtherToyStage", "--ckpt_path", path]) == 4
    assert f"{path}: is a checkpoint of stage ToyStage, expected OtherToyStage" in only_line(capsys)


def test_a_second_run_in_the_same_folder_is_refused(capsys):
    from lightning_mav.checkpoint.resume import RunFolder

    fit()
    half_written = Path("run/checkpoints/.partial-checkpoint")
    half_written.touch()
    with RunFolder(Path("run")).lock():
        assert fit("--trainer.max_steps", "9") == 5
    assert f"run: in use by process {os.getpid()}" in only_line(capsys)
    assert half_written.exists()


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_float32_where_the_cpu_only_emulates_it(native, precision, monkeypatch, capsys):
    monkeypatch.setattr("lightning_mav.cli.multiplies_bf16", lambda device: native)
    used = []
    monkeypatch.setattr(ToyStage, "on_fit_start", lambda stage: used.append(stage.trainer.precision))
    assert fit("--trainer.precision", "bf16-mixed", "--trainer.max_steps", "1") == 0
    assert used == [precision]
    assert ("this CPU only emulates bf16" in capsys.readouterr().out) == (not native)


# signals and failures


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_after_the_step_and_sets_the_exit_code(name, code, capsys):
    before = signal.getsignal(signal.SIGINT)
    assert fit("--model.event", name, "--model.at", "2") == code
    assert "stopped by a signal" in capsys.readouterr().out
    assert weights()["global_step"] == 3
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("event", "code", "saved"), [("nan", 6, False), ("memory", 5, True)])
def test_a_failure_is_one_line_and_nan_is_never_saved(event, code, saved, capsys):
    assert fit("--model.event", event, "--model.at", "3") == code
    only_line(capsys)
    assert (newest_checkpoint("run") is not None) == saved


def test_what_a_constructor_says_is_kept_also_where_it_has_a_cause_of_its_own(capsys):
    assert fit("--model.event", "missing file") == 4
    assert only_line(capsys) == "error: x.ckpt: cannot be read; fetch it again"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        fit("--model.event", "bug", "--model.at", "1")


def test_debug_shows_the_traceback():
    with pytest.raises(NumericError):
        fit("--model.event", "nan", "--model.at", "1", "--debug")


# bad input: one line that names the key or file and the fix

BAD = {
    "unknown key": (["--model.lrr", "1"], 2, "unknown key 'model.lrr'; did you mean 'model.lr'?"),
    "unknown trainer key": (["--trainer.max_stepss", "1"], 2, "did you mean 'trainer.max_steps'?"),
    "unknown section": (["--modl.lr", "1"], 2, "unknown key 'modl.lr'"),
    "wrong type": (["--model.lr", "fast"], 2, "model.lr: expected float, got 'fast'"),
    "wrong union": (["--trainer.limit_val_batches", "x"], 2, "trainer.limit_val_batches: expected int or float"),
    "wrong class": (["--model", "ToyStge"], 2, "no class 'ToyStge' of the right kind; did you mean 'ToyStage'?"),
    "forbidden class": (["--model", "os.system"], 2, "no class 'os.system' of the right kind"),
    "no callback": (["--trainer.callbacks+=callbacks.nope.X"], 2, "no class 'callbacks.nope.X' of the right kind"),
    "missing config": (["--config", "nope.yaml"], 2, "nope.yaml"),
    "broken config": (["--config", "broken.yaml"], 2, "broken.yaml"),
    "section key": (["--trainer", "section.yaml"], 2, "did you mean 'trainer.accelerator'?"),
    "no such device": (["--trainer.accelerator", "gpu", "--trainer.devices", "99"], 5, "trainer:"),
    "unwritable run": (["--run", "/proc/run"], 5, "/proc/run: cannot write to the run folder"),
    "checkpoint interval": (["--checkpoint_every", "0"], 2, "checkpoint_every: expected at least 1"),
    "bad batch": (["--data.batch_size", "0"], 2, "data.batch_size"),
    "missing checkpoint": (["--ckpt_path", "nope.ckpt"], 4, "nope.ckpt: no such checkpoint file"),
    "remote checkpoint": (["--ckpt_path", "https://x.y/z.ckpt"], 4, "local files only"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.row(1, 2, 4, 5)
def test_bad_input_is_one_line(case, capsys):
    arguments, code, message = BAD[case]
    Path("broken.yaml").write_text("model: [1\n")
    Path("section.yaml").write_text("acelerator: cpu\n")
    assert fit(*arguments) == code
    assert message in only_line(capsys)


def test_fit_without_a_run_folder_says_what_to_add(capsys):
    assert main(["fit", "--config", "toy.yaml"]) == 2
    assert "add --run runs/NAME" in only_line(capsys)


def test_print_config_shows_overrides(capsys):
    assert fit("--model.lr", "0.25", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["lr"] == 0.25


@pytest.mark.parametrize(
    "section", sorted(Path(__file__).parents[1].glob("configs/trainer/*.yaml")), ids=lambda p: p.stem
)
def test_trainer_sections_parse(section, capsys):
    assert fit("--trainer", str(section), "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    assert flat(printed).items() >= flat(yaml.safe_load(section.read_text())).items()
