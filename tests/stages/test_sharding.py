"""FSDP2 with two ranks on the CPU: the same training as one process, and checkpoints that either reads."""

import contextlib
import io
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lightning_mav import cli  # imported once, for all ranks
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.export import export_model
from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, read_description, read_model
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.errors import ConfigError
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.models.decoder import Decoder
from lightning_mav.networks.pseudo3d import TemporalConfig
from lightning_mav.networks.small_clip import SmallClipConfig
from lightning_mav.networks.unet import UNetConfig
from lightning_mav.planning.sharding import FLOAT32, SHARED, on_one_rank
from lightning_mav.stages.base import Stage
from lightning_mav.stages.sharding import shard
from lightning_mav.strategies import renamed
from tests.ranks import in_ranks
from tests.test_configs import ROOT, overlay, read

SECTION = ROOT / "configs" / "trainer" / "fsdp2.yaml"
TWO = [f"--trainer={SECTION}", "--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.precision=32-true"]
FILE = "--trainer.strategy.init_args.save_distributed_checkpoint=false"


def outcomes(*commands):
    """Run commands one after the other; return of each its exit code, and what its steps were on this rank.

    Returns:
        For each command the code, a row of loss and gradient norm per step, and the losses of validation.
    """
    steps, validation = [], []
    training_step, optimizer_step, log = Stage.training_step, Stage.optimizer_step, Stage.log

    def recorded_loss(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        steps.append([float(loss.detach())])
        return loss

    def recorded_norm(self, *args, **kwargs):
        optimizer_step(self, *args, **kwargs)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        steps[-1].append(float(norm.full_tensor() if isinstance(norm, DTensor) else norm))

    def recorded_log(self, name, value, **settings):
        log(self, name, value, **settings)
        validation.extend([float(value)] if name == "val/loss" else [])

    Stage.training_step, Stage.optimizer_step, Stage.log = recorded_loss, recorded_norm, recorded_log
    found = []
    for words in commands:
        found.append((main([str(word) for word in words]), torch.tensor(steps), torch.tensor(validation)))
        steps.clear()
        validation.clear()
    return found


def alone(*commands):
    """Run commands in one process; return rows of steps and losses of validation of each."""
    return agreed(in_ranks(outcomes, *commands, world=1))


def together(*commands):
    """Run commands on two ranks; return rows of steps and losses of validation of each, means over the ranks."""
    return agreed(in_ranks(outcomes, *commands))


def agreed(ranks):
    assert {code for rank in ranks for code, _, _ in rank} == {0}
    return [
        tuple(torch.stack(values).mean(0) for values in list(zip(*command, strict=True))[1:])
        for command in zip(*ranks, strict=True)
    ]


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
    fixed += ["--model.config.network.mid_attention=false"]
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
    done = {"one": alone(words(one, 5))[0]}
    copy_of(one, 3, to_two)
    first, second, done["to_two"] = together(words(two, 3, *TWO), words(two, 5, *TWO), words(to_two, 5, *TWO, FILE))
    done["two"] = torch.cat([first[0], second[0]]), first[1]
    copy_of(two, 3, to_one)
    done["to_one"] = alone(words(to_one, 5))[0]
    return folder, done


@pytest.mark.parametrize("name", ["two", "to_two", "to_one"])
def test_two_ranks_train_as_one_process_and_each_resumes_the_other(runs, name):
    folder, done = runs
    steps = done[name][0]
    assert (steps - done["one"][0][-len(steps) :]).abs().max() < 1e-5
    states = [read_checkpoint(saved(folder / run, 5))["state_dict"] for run in ("one", name)]
    assert farthest(*states) < 1e-4  # Adam turns rounding into steps


def test_validation_computes_with_the_averages(runs):
    alone, two = (runs[1][name][1] for name in ("one", "two"))
    assert len(alone) == 10  # five times before the first step, five times after the third
    assert (alone - two).abs().max() < 1e-5


def test_gradients_are_clipped_by_the_norm_of_all_ranks(runs):
    norms = runs[1]["one"][0][:, 1]
    assert norms.max() == pytest.approx(CLIP, rel=1e-4) and norms.min() < CLIP * 0.99


def test_a_sharded_checkpoint_is_a_folder_and_holds_what_a_file_does(runs):
    folder, _ = runs
    assert saved(folder / "two", 5).is_dir() and saved(folder / "to_two", 5).is_file()
    one, *others = (read_checkpoint(saved(folder / run, 5)) for run in ("one", "two", "to_two"))
    for other in others:
        assert other.keys() >= one.keys() - {"optimizer_states"}
        assert other["stage"] == "DecoderStage" and other["loops"].keys() == one["loops"].keys()
        (theirs,), (ours,) = other["optimizer_states"], one["optimizer_states"]
        theirs = renamed(theirs, range(sum(len(group["params"]) for group in theirs["param_groups"])))
        assert [group["params"] for group in theirs["param_groups"]] == [
            group["params"] for group in ours["param_groups"]
        ]
        for key, moments in ours["state"].items():
            assert farthest({"": theirs["state"][key]["exp_avg"]}, {"": moments["exp_avg"]}) < 1e-5


def test_models_are_read_and_exported_from_a_sharded_run(runs, tmp_path):
    folder, _ = runs
    export_model(folder / "two", tmp_path / "model")
    export_model(saved(folder / "two", 5), tmp_path / "raw", weights="raw")
    for weights, exported in (("averaged", "model"), ("raw", "raw")):
        expected = read_model(folder / "one", weights=weights)[1]
        assert farthest(load_model(tmp_path / exported).state_dict(), expected) < 1e-4
    assert read_description(folder / "two") == read_description(folder / "one")


def test_a_model_too_small_to_be_cut_says_what_to_take():
    clip = Clip(ClipConfig(SmallClipConfig(8, 8, (8,), text_width=8, text_layers=1, text_heads=1)))
    with pytest.raises(ConfigError, match=r"the clip is too small to be cut.*ddp\.yaml"):
        shard(clip, None, "32-true")


@pytest.fixture
def mesh(request):
    """The devices of a group that is not there: what one of them holds is real, and nothing is sent."""
    torch.distributed.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    yield init_device_mesh("cpu", (request.param,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mesh", [8, 64, 256], indirect=True)
def test_a_device_of_many_holds_the_share_that_is_planned(mesh, decoder_config):
    network = UNetConfig(channels=256, channel_mult=(1, 2), num_res_blocks=1, image_embedding_dim=256, context_dim=256)
    network = replace(network, fps=True, temporal=TemporalConfig())
    with torch.device("meta"):
        model = Decoder(replace(decoder_config(), network=network))
    weights = sum(parameter.numel() * FLOAT32 for parameter in model.parameters())
    peak = Counter(dict.fromkeys((*SHARED, "activations"), weights))
    planned = on_one_rank(peak, mesh.size(), trained=0, gathered=0)["weights"]
    shard(model, mesh, "32-true")
    held = sum(parameter.to_local().nbytes for parameter in model.parameters())
    assert held == pytest.approx(planned, rel=0.01)


@pytest.fixture
def words_of(narrow_clip):
    """Return a function that gives the words of a tiny fit of a configuration, of four samples a step in all."""

    def build(name, run, steps, *options):
        path = ROOT / "configs" / f"{name}.yaml"
        config = read(path)
        fixed = [*overlay(config), "--model.init_from=null", "--trainer.limit_val_batches=1", "--checkpoint_every=3"]
        if "clip" in config["data"]["init_args"]:
            fixed.append(f"--data.clip={narrow_clip}")
        if "SampleGrid" in path.read_text():  # the last of the callbacks
            fixed.append("--trainer.callbacks.init_args.every_n_steps=2")
        fixed += [f"--data.batch_size={2 if TWO[0] in options else 4}", f"--trainer.max_steps={steps}"]
        return ["fit", f"--config={path}", f"--run={run}", *fixed, *options]

    return build


def names(folder):
    return sorted(path.name for path in folder.iterdir())


STAGES = ["prior", "decoder_image", "decoder_video", "interpolation", "sr_spacetime_video", "sr_spatial"]


@pytest.mark.full
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_trains_saves_resumes_and_exports_by_folder_and_by_file(name, words_of, tmp_path):
    one, folder, file = (tmp_path / kind for kind in ("one", "folder", "file"))
    expected = alone(words_of(name, one, 5, "--trainer.precision=32-true"))[0][0]
    parts = [
        steps
        for steps, _ in together(
            words_of(name, folder, 3, *TWO),
            words_of(name, folder, 5, *TWO),
            words_of(name, file, 3, *TWO, FILE),
            words_of(name, file, 5, *TWO, FILE),
        )
    ]
    for run, steps in ((folder, parts[:2]), (file, parts[2:])):
        assert (torch.cat(steps) - expected)[:, 0].abs().max() < 1e-5
        assert names(run / "samples") == names(one / "samples")
        for weights in ("averaged", "raw"):
            export_model(run, tmp_path / f"{run.name}_{weights}", weights)
            state = load_model(tmp_path / f"{run.name}_{weights}").state_dict()
            assert farthest(state, read_model(one, weights=weights)[1]) < 1e-3


@pytest.mark.full
def test_the_command_line_starts_its_own_ranks(words, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "lightning_mav", *map(str, words(run, 3, *TWO))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3 reached") == 1
    assert read_checkpoint(saved(run, 3))["global_step"] == 3


def codes_when(fail, words):
    """Run a command with a fault on this rank, put there by ``fail(rank)``; return the exit code and the error."""
    fail(int(os.environ["RANK"]))
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = main([str(word) for word in words])
    return code, error.getvalue()


@pytest.mark.full
def test_a_loss_that_is_not_finite_on_one_rank_ends_all_before_a_checkpoint(words, tmp_path):
    def fail(rank):
        losses = Stage.losses
        Stage.losses = lambda self, *args: {k: v * (math.inf if rank else 1) for k, v in losses(self, *args).items()}

    ranks = in_ranks(codes_when, fail, words(tmp_path, 3, *TWO, "--trainer.num_sanity_val_steps=0"))
    assert [code for code, _ in ranks] == [6, 6]
    assert all("the loss is not finite at step 0" in error for _, error in ranks)
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.full
@pytest.mark.parametrize("kind", [(), (FILE,)], ids=["folder", "file"])
def test_a_rank_that_cannot_write_ends_all_and_the_last_checkpoint_stays(kind, words, tmp_path):
    def fail(rank):
        if rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    assert len(together(words(tmp_path, 3, *TWO, *kind))) == 1
    ranks = in_ranks(codes_when, fail, words(tmp_path, 6, *TWO, *kind, "--trainer.logger=false"))
    assert [code for code, _ in ranks] == [5, 5]
    assert all("cannot write" in error and error.count("\n") == 1 for _, error in ranks)
    assert newest_checkpoint(tmp_path) == saved(tmp_path, 3)
    assert not saved(tmp_path, 6).exists()


@pytest.mark.full
def test_a_folder_without_its_marker_does_not_count_and_is_cleared(words, tmp_path):
    together(words(tmp_path, 3, *TWO))
    shutil.copytree(saved(tmp_path, 3), saved(tmp_path, 4))  # as when killed before the last file
    (steps, _) = together(words(tmp_path, 5, *TWO))[0]
    assert len(steps) == 2 and saved(tmp_path, 5).is_dir() and not saved(tmp_path, 4).exists()


@pytest.mark.full
@pytest.mark.parametrize("kind", [(), (FILE,)], ids=["folder", "file"])
def test_another_stage_is_refused_on_all_ranks(kind, words, words_of, tmp_path):
    together(words(tmp_path / "decoder", 1, *TWO, *kind))
    path = saved(tmp_path / "decoder", 1)
    command = [*words_of("prior", tmp_path / "prior", 2, *TWO), f"--ckpt_path={path}"]
    ranks = in_ranks(codes_when, lambda rank: None, command)
    assert [code for code, _ in ranks] == [4, 4]
    assert "is a checkpoint of stage DecoderStage, expected PriorStage" in ranks[0][1]


@pytest.mark.full
def test_weights_travel_in_bfloat16_under_mixed_precision(words, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_emulates_bf16", lambda trainer: False)
    mixed = "--trainer.precision=bf16-mixed"
    alone_, two = alone(words(tmp_path / "one", 3, mixed)), together(words(tmp_path / "two", 3, *TWO, mixed))
    assert (alone_[0][0] - two[0][0])[:, 0].abs().max() < 0.02
    assert read_checkpoint(saved(tmp_path / "two", 3))["state_dict"]["model.network.cf_param"].dtype == torch.float32
