"""What all stages share: keyed randomness, positions, averaged weights, exact resume, plain errors."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_mav.checkpoint.io import read_checkpoint
from lightning_mav.checkpoint.models import load_model, save_model
from lightning_mav.checkpoint.resolve import newest_checkpoint
from lightning_mav.errors import ConfigError
from lightning_mav.models.decoder import Decoder
from lightning_mav.networks.pseudo3d import is_dirac, is_temporal
from lightning_mav.stages import DecoderStage
from lightning_mav.stages.base import decay_groups


@pytest.fixture
def drawn(decoder_config):
    """Return a function that tells what a stage draws for some (index, position) pairs: noise, timestep, dropped."""

    def draw(pairs, seed=0):
        stage = DecoderStage(decoder_config(condition_dropout=0.5), seed=seed)
        calls = []
        stage.model.loss = lambda batch, noise, timestep: calls.append((noise, timestep, batch["dropped"])) or {}
        index, position = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
        stage.losses({"index": index, "position": position, "video": torch.zeros(len(pairs), 3, 2, 8, 8)})
        return list(zip(*calls[0], strict=True))

    return draw


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


PAIRS = [(3, 10), (5, 11), (3, 12), (8, 13)]


def test_noise_timestep_and_dropping_do_not_depend_on_the_batch(drawn):
    together = drawn(PAIRS)
    assert all(same(one, other) for one, other in zip(drawn(PAIRS[::-1])[::-1], together, strict=True))
    assert all(same(drawn([pair])[0], one) for pair, one in zip(PAIRS, together, strict=True))


def test_noise_and_timestep_are_new_for_another_position_index_or_seed(drawn):
    first = drawn(PAIRS)
    noises = [noise for noise, _, _ in first] + [drawn(PAIRS[:1], seed=1)[0][0], drawn([(4, 10)])[0][0]]
    assert not any(torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
    assert len({int(timestep) for _, timestep, _ in drawn([(0, position) for position in range(30)])}) > 20
    share = sum(bool(dropped) for _, _, dropped in drawn([(0, position) for position in range(100)]))
    assert 30 < share < 70


def test_accumulation_computes_the_same_as_a_larger_batch(decoder_config, data, train):
    weights = []
    for batch_size, accumulate in ((4, 1), (2, 2)):
        torch.manual_seed(0)
        stage = DecoderStage(decoder_config(), lr=1e-3)
        train(stage, data(batch_size=batch_size), steps=3, accumulate_grad_batches=accumulate)
        weights.append(torch.cat([p.flatten() for p in stage.model.parameters()]))
    assert (weights[0] - weights[1]).abs().max() < 1e-3  # Adam moves by up to lr where a gradient is all rounding
    assert (weights[0] - weights[1]).abs().mean() < 1e-5


def test_averages_follow_once_per_optimiser_step_and_hold_what_is_trained(decoder_config, data, train):
    stage = DecoderStage(decoder_config(), trainable="temporal")
    train(stage, data(), steps=3, accumulate_grad_batches=2)
    trained = [name for name, parameter in stage.model.named_parameters() if parameter.requires_grad]
    assert int(stage.ema.num_updates) == 3
    assert trained and list(stage.ema.names) == trained
    assert len(list(stage.ema.parameters())) == len(trained)


def test_temporal_training_moves_temporal_weights_only(decoder_config, data, train):
    stage = DecoderStage(decoder_config(), trainable="temporal", lr=1e-2, weight_decay=0.1)
    before = {name: value.clone() for name, value in stage.model.network.state_dict().items()}
    train(stage, data(), steps=2)
    moved = {name for name, value in stage.model.network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(is_temporal(name) for name in moved)
    with pytest.raises(ConfigError, match=r"set network.temporal"):
        DecoderStage(decoder_config(videos=False), trainable="temporal")


def test_weight_decay_leaves_identity_kernels_norms_and_biases_alone(decoder_config):
    model = Decoder(decoder_config())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = ([names[id(p)] for p in group["params"]] for group in decay_groups(model, 0.1))
    assert len(decayed) + len(kept) == len(names)
    assert "network.input_blocks.1.0.in_layers.2.weight" in decayed
    assert "network.input_blocks.1.0.in_layers.2.temporal.weight" in kept
    assert not any(is_dirac(name) or name.endswith("bias") for name in decayed)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    kernel = model.network.input_blocks[1][0].in_layers["2"].temporal.weight
    before = kernel.clone()
    optimizer.step()
    assert torch.equal(kernel, before)


def test_a_frozen_clip_stays_outside(decoder_config, data, train):
    stage, source = DecoderStage(decoder_config()), data()
    trainer = train(stage, source, steps=1)
    clip = [value for value in vars(source.clip).values() if isinstance(value, nn.Module)]
    frozen = {id(parameter) for module in clip for parameter in module.parameters()}
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert frozen and not frozen & {id(parameter) for parameter in stage.parameters()}
    assert optimised == {id(parameter) for parameter in stage.model.parameters()}
    saved = trainer._checkpoint_connector.dump_checkpoint()
    assert all(name.startswith(("model.network.", "ema.")) for name in saved["state_dict"])
    assert set(load_keys(saved)) == set(stage.model.state_dict())


def load_keys(checkpoint):
    return [name.removeprefix("model.") for name in checkpoint["state_dict"] if name.startswith("model.")]


def test_the_learning_rate_rises_stays_and_falls_to_zero(decoder_config):
    stage = DecoderStage(decoder_config(), warmup_steps=4, schedule_steps=20, decay_steps=10)
    factors = [stage.lr_factor(step) for step in range(25)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[5:11] == [1.0] * 6 and factors[15] == 0.5 and factors[20:] == [0.0] * 5
    assert [DecoderStage(decoder_config()).lr_factor(step) for step in (0, 10**6)] == [1.0, 1.0]


def test_a_loss_that_is_not_finite_ends_the_run_without_a_checkpoint(fit, tmp_path, capsys):
    assert fit(tmp_path, "--model.lr", 1e30) == 6
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the loss is not finite at step" in error and "lower model.lr" in error
    assert newest_checkpoint(tmp_path) is None


def test_a_clip_of_another_width_is_refused(fit, tmp_path, narrow_clip, capsys):
    assert fit(tmp_path, "--model.config.network.image_embedding_dim", 12) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"data.clip {narrow_clip} has embeddings of width 8" in error
    assert "model.config.network was built for 12" in error


def test_a_run_starts_from_init_from_and_needs_it_no_more(fit, tmp_path, decoder_config):
    start, run = tmp_path / "start", tmp_path / "run"
    save_model(Decoder(decoder_config()), start)
    options = ["--model.init_from", start, "--model.config.objective.parameterisation", "v"]
    options += ["--model.config.objective.variance", "fixed_small"]
    assert fit(run, *options, "--model.lr", 0, "--trainer.max_steps", 1) == 0
    one, other = load_model(start).state_dict(), load_model(run).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    shutil.rmtree(start)
    assert fit(run, *options, "--model.lr", 0, "--trainer.max_steps", 2) == 0
    assert fit(tmp_path / "new", *options) == 4


KILLED = """
import json, os, signal, sys
import lightning_mav.cli, lightning_mav.stages
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.ema import Ema

def die_after(steps):
    update = Ema.update

    def update_or_die(self, module):  # the weights have moved, their averages have not
        if int(self.num_updates) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, module)

    Ema.update = update_or_die

for steps, words in json.loads(sys.argv[1]):
    child = os.fork()  # nothing has been computed yet, so no thread is lost
    if not child:
        die_after(steps)
        os._exit(main(words))
    print("signal", os.WTERMSIG(os.waitpid(child, 0)[1]), flush=True)
"""
RUNS = {"plain": ([], []), "accumulation": (["--trainer.accumulate_grad_batches", "2"], ["--data.num_workers", "1"])}


@pytest.fixture(scope="module")
def killed(fit_command, tmp_path_factory):
    """For each kind of run the step in which one was killed, its folder, and its options."""
    folder = tmp_path_factory.mktemp("killed")
    common = ["--checkpoint_every", "2", "--model.schedule_steps", "6", "--trainer.limit_val_batches", "0"]
    runs = {name: (random.randrange(6), folder / name, [*common, *options]) for name, (options, _) in RUNS.items()}
    words = json.dumps([(step, fit_command(run, *options)) for step, run, options in runs.values()])
    settings = {"cwd": Path(__file__).parents[2], "env": os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}}
    done = subprocess.run([sys.executable, "-c", KILLED, words], **settings, stdout=subprocess.PIPE, text=True)
    assert done.stdout.count(f"signal {int(signal.SIGKILL)}") == len(runs), done.stdout
    return runs


@pytest.mark.full
@pytest.mark.row(38)
@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_continues_bit_for_bit(fit, killed, tmp_path, name):
    step, run, options = killed[name]
    assert (newest_checkpoint(run) is None) == (step < 2)
    assert fit(run, *options, *RUNS[name][1]) == 0
    assert fit(tmp_path, *options) == 0
    one, other = (read_checkpoint(newest_checkpoint(folder)) for folder in (run, tmp_path))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert leaves(one[part]) == leaves(other[part]), f"{part} differs after a kill in step {step}"


def leaves(tree):
    """Return all numbers of nested containers, bit for bit."""
    if isinstance(tree, torch.Tensor):
        return tree.flatten().tolist()
    if isinstance(tree, dict):
        return {key: leaves(value) for key, value in tree.items()}
    return [leaves(value) for value in tree] if isinstance(tree, list) else tree
