"""FSDP2 with two ranks on the CPU: the same training as one process, and checkpoints that either reads."""

import shutil

import pytest
import torch
from torch.distributed.tensor import DTensor

import lightning_mav.cli  # imported once, for all ranks
import lightning_mav.stages.sharding
import lightning_mav.strategies  # noqa: F401
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.export import export_model
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, read_description, read_model
from lightning_mav.stages.base import Stage
from tests.ranks import in_ranks
from tests.test_configs import ROOT, overlay, read

SECTION = ROOT / "configs" / "trainer" / "fsdp2.yaml"
TWO = [f"--trainer={SECTION}", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true"]
FILE = "--trainer.strategy.init_args.save_distributed_checkpoint=false"


def outcomes(*commands):
    """Run commands one after the other; return of each its exit code, and [loss, gradient norm] of its steps here."""
    steps = []
    training_step, optimizer_step = Stage.training_step, Stage.optimizer_step

    def recorded_loss(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        steps.append([float(loss.detach())])
        return loss

    def recorded_norm(self, *args, **kwargs):
        optimizer_step(self, *args, **kwargs)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        steps[-1].append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))

    Stage.training_step, Stage.optimizer_step = recorded_loss, recorded_norm
    found = []
    for words in commands:
        found.append((main([str(word) for word in words]), torch.tensor(steps)))
        steps.clear()
    return found


def alone(*commands):
    """Run commands in one process; return [loss, gradient norm] of the steps of each."""
    return agreed(in_ranks(outcomes, *commands, world=1))


def together(*commands):
    """Run commands on two ranks; return [loss, gradient norm] of the steps of each, means over the ranks."""
    return agreed(in_ranks(outcomes, *commands))


def agreed(ranks):
    assert {code for rank in ranks for code, _ in rank} == {0}
    return [torch.stack([steps for _, steps in command]).mean(0) for command in zip(*ranks, strict=True)]


def saved(run, step):
    return run / "checkpoints" / f"step={step:06d}.ckpt"


def farthest(a, b):
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def copy_of(run, step, folder):
    """Return a new run that has one checkpoint of another one, and may be resumed with another batch size."""
    (folder / "checkpoints").mkdir(parents=True)
    for path in saved(run, step).parent.glob(f"{saved(run, step).name}*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, folder / "checkpoints" / path.name)
    return folder


CLIP = 0.64  # of gradients: some steps are longer, some shorter


@pytest.fixture(scope="module")
def words(fit_command):
    """Return a function that gives the words of a fit without dropout, of four samples a step in all."""
    fixed = ["--model.config.network.dropout=0", "--model.config.network.attention_downsamples=[]"]
    fixed += [f"--trainer.gradient_clip_val={CLIP}", "--trainer.limit_val_batches=1", "--checkpoint_every=3"]

    def build(run, steps, *options):
        size = 2 if TWO[0] in options else 4
        return fit_command(run, *fixed, f"--data.batch_size={size}", f"--trainer.max_steps={steps}", *options)

    return build


@pytest.fixture(scope="module")
def runs(words, tmp_path_factory):
    """The same five steps: in one process; on two ranks, stopped after three; from either to the other after three."""
    folder = tmp_path_factory.mktemp("runs")
    one, two = folder / "one", folder / "two"
    to_two, to_one = folder / "to_two", folder / "to_one"
    steps = {"one": alone(words(one, 5))[0]}
    copy_of(one, 3, to_two)
    parts = together(words(two, 3, *TWO), words(two, 5, *TWO), words(to_two, 5, *TWO, FILE))
    steps |= {"two": torch.cat(parts[:2]), "to_two": parts[2]}
    copy_of(two, 3, to_one)
    steps["to_one"] = alone(words(to_one, 5))[0]
    return folder, steps


@pytest.mark.parametrize("name", ["two", "to_two", "to_one"])
def test_two_ranks_train_as_one_process_and_each_resumes_the_other(runs, name):
    folder, steps = runs
    expected = steps["one"][-len(steps[name]) :]
    assert (steps[name] - expected).abs().max() < 1e-5
    states = [read_checkpoint(saved(folder / run, 5))["state_dict"] for run in ("one", name)]
    assert farthest(*states) < 1e-4  # Adam turns rounding into steps


def test_gradients_are_clipped_by_the_norm_of_all_ranks(runs):
    norms = runs[1]["one"][:, 1]
    assert norms.max() == pytest.approx(CLIP, rel=1e-4) and norms.min() < CLIP * 0.99


def test_a_sharded_checkpoint_is_a_folder_and_holds_what_a_file_does(runs):
    folder, _ = runs
    assert saved(folder / "two", 5).is_dir() and saved(folder / "to_two", 5).is_file()
    one, *others = (read_checkpoint(saved(folder / run, 5)) for run in ("one", "two", "to_two"))
    for other in others:
        assert other.keys() >= one.keys() - {"optimizer_states"}
        assert other["stage"] == "DecoderStage" and other["loops"].keys() == one["loops"].keys()
        (theirs,), (ours,) = other["optimizer_states"], one["optimizer_states"]
        assert [len(group["params"]) for group in theirs["param_groups"]] == [
            len(group["params"]) for group in ours["param_groups"]
        ]
        moments = {key: value["exp_avg"] for key, value in zip(ours["state"], theirs["state"].values(), strict=True)}
    assert farthest(moments, {key: value["exp_avg"] for key, value in ours["state"].items()}) < 1e-5


def test_models_are_read_and_exported_from_a_sharded_run(runs, tmp_path):
    folder, _ = runs
    export_model(folder / "two", tmp_path / "model")
    export_model(saved(folder / "two", 5), tmp_path / "raw", weights="raw")
    for weights, exported in (("averaged", "model"), ("raw", "raw")):
        expected = read_model(folder / "one", weights=weights)[1]
        assert farthest(load_model(tmp_path / exported).state_dict(), expected) < 1e-4
    assert read_description(folder / "two") == read_description(folder / "one")


@pytest.fixture
def words_of(narrow_clip):
    """Return a function that gives the words of a tiny fit of a configuration, of four samples a step in all."""

    def build(name, run, steps, *options):
        path = ROOT / "configs" / f"{name}.yaml"
        config = read(path)
        fixed = [*overlay(config), "--model.init_from=null", "--trainer.limit_val_batches=1", "--checkpoint_every=3"]
        if "clip" in config["data"]["init_args"]:
            fixed.append(f"--data.clip={narrow_clip}")
        fixed += [f"--data.batch_size={2 if TWO[0] in options else 4}", f"--trainer.max_steps={steps}"]
        return ["fit", f"--config={path}", f"--run={run}", *fixed, *options]

    return build


STAGES = ["prior", "decoder_image", "decoder_video", "interpolation", "sr_spacetime_video", "sr_spatial"]


@pytest.mark.full
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_trains_saves_resumes_and_exports_by_folder_and_by_file(name, words_of, tmp_path):
    one, folder, file = (tmp_path / kind for kind in ("one", "folder", "file"))
    expected = alone(words_of(name, one, 5, "--trainer.precision=32-true"))[0]
    parts = together(
        words_of(name, folder, 3, *TWO),
        words_of(name, folder, 5, *TWO),
        words_of(name, file, 3, *TWO, FILE),
        words_of(name, file, 5, *TWO, FILE),
    )
    for run, steps in ((folder, parts[:2]), (file, parts[2:])):
        assert (torch.cat(steps) - expected)[:, 0].abs().max() < 1e-5
        for weights in ("averaged", "raw"):
            export_model(run, tmp_path / f"{run.name}_{weights}", weights)
            state = load_model(tmp_path / f"{run.name}_{weights}").state_dict()
            assert farthest(state, read_model(one, weights=weights)[1]) < 1e-3
