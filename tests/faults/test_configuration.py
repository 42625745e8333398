"""Rows 1 to 8: what is wrong with a configuration is found before any data is opened, and named."""

import os
import re
import time

import pytest
import torch
import yaml
from hydra.errors import HydraException

from eval import __main__ as evaluation
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.models import save_model
from lightning_mav.errors import ConfigError
from lightning_mav.models.super_resolution import SpatialSR
from lightning_mav.yaml_text import count_values
from tests.commands.conftest import sr_config
from tests.faults.tiers import tiered

NETWORK = "model.config.network"
OUT_OF_RANGE = {
    "data.frames": "0",
    "data.num_workers": "-1",
    "data.fps": "-8",
    "data.fps.beta_start": "[0, 1]",
    "data.size": "0",
    "model.lr": ".nan",
    "model.beta2": "1.5",
    "model.ema_decay": "-0.1",
    "model.config.objective.num_timesteps": "0",
    "model.config.condition_dropout": "2",
    f"{NETWORK}.channels": "0",
    f"{NETWORK}.temporal.kernel_size": "-3",
    "trainer.accumulate_grad_batches": "0",
    "seed_everything": "-1",
}
AT_ODDS = {
    "model.config.sampling.steps": ("2000", "model.config.objective.num_timesteps"),
    "data.fps": ("{low: 30, high: 2}", "data.fps.high"),
    f"{NETWORK}.norm_groups": ("3", f"{NETWORK}.channels"),
    f"{NETWORK}.channel_mult": ("[1.25]", "cannot be built from this configuration"),
    "data.size": ("10", "model.config.image_size"),
}


@pytest.mark.row(3)
@pytest.mark.parametrize("key", tiered(OUT_OF_RANGE, "data.frames"))
def test_a_number_out_of_its_range_is_named_with_the_range(fit_command, refused, tmp_path, key):
    line = refused(fit_command(tmp_path, f"--{key}", OUT_OF_RANGE[key]), 2, f"error: {key}", "expected a number ")
    assert line.endswith("; correct it")


@pytest.mark.row(3)
@pytest.mark.parametrize("key", tiered(AT_ODDS, "model.config.sampling.steps"))
def test_numbers_that_do_not_go_together_are_both_named(fit_command, refused, tmp_path, key):
    value, other = AT_ODDS[key]
    refused(fit_command(tmp_path, f"--{key}", value), 2, other)


@pytest.mark.row(3)
def test_a_bad_number_of_the_largest_model_is_found_before_anything_is_built(refused, tmp_path):
    words = ["--config", "configs/decoder_video.yaml", "--config", "configs/paper/decoder_video.yaml"]
    refused(["fit", *words, "--run", tmp_path, "--model.lr", "-1"], 2, "model.lr")


def bomb(levels):
    """YAML of a few hundred bytes that stands for 10 ** levels values."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


BAD_FILES = {
    "invalid": (b"model: [1\n", "not valid YAML", "line 2"),
    "aliases": (bomb(30).encode(), "aliases that stand for more than", "line"),
    "holds itself": (b"model: &a\n  x: *a\n", "aliases that stand for more than", "line 2"),
    "too deep": (b"[" * 50_000, "nested more than", "line 1"),
    "not UTF-8": "model: caf\xe9\n".encode("latin-1"),
    "tag": (b"model: !!python/object/apply:os.mkdir [was_run]\n", "not valid YAML", "python/object/apply"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "not valid YAML"),
    "a list": (b"- 1\n- 2\n", "config"),
    "empty key": (b"model:\n", "model"),
}


@pytest.mark.row(4)
@pytest.mark.parametrize("case", tiered(BAD_FILES, "aliases"))
def test_a_broken_file_is_named_at_once(refused, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    content, *said = BAD_FILES[case] if isinstance(BAD_FILES[case], tuple) else (BAD_FILES[case], "not valid YAML")
    (tmp_path / "bad.yaml").write_bytes(content)
    refused(["fit", "--config", "bad.yaml", "--run", "run"], 2, *said)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.row(4)
@pytest.mark.parametrize(
    "where", tiered(["section", "named by a file", "command line", "the run's own"], "named by a file")
)
def test_aliases_are_counted_wherever_yaml_is_read(fit_command, refused, tmp_path, where):
    (tmp_path / "bomb.yaml").write_text(bomb(12))
    (tmp_path / "names.yaml").write_text("trainer: bomb.yaml\n")
    (tmp_path / "config.yaml").write_text(bomb(12))
    words = {
        "section": fit_command(tmp_path / "run", "--trainer", tmp_path / "bomb.yaml"),
        "named by a file": ["fit", "--config", tmp_path / "names.yaml", "--run", tmp_path / "run"],
        "command line": fit_command(tmp_path / "run", f"--trainer={{{bomb(12).replace(chr(10), ', ')}}}"),
        "the run's own": ["fit", "--run", tmp_path],
    }
    refused(words[where], 2, "aliases that stand for more than 100,000 values")


@pytest.mark.row(4)
def test_anchors_of_a_usual_size_are_welcome_and_counted_as_written_out():
    text = "a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, z: 3}\n"
    assert count_values(text, "t") > count_values("a: {x: 1, y: [1, 2]}\n", "t") * 2
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"t, line \d+"):
        count_values(bomb(60), "t")
    assert time.process_time() - began < 1


@pytest.mark.row(6)
def test_a_network_that_cannot_take_the_frames_before_it_is_named_with_the_one_that_makes_them(
    pipeline_folder, refused, tmp_path
):
    config = sr_config(temporal=None, channel_mult=(1, 1, 1, 1, 1, 1, 1))
    save_model(SpatialSR(config), tmp_path / "sr")
    words = ["generate", "--model", pipeline_folder, "--prompt", "a ring", "--out", tmp_path / "a.mp4"]
    refused([*words, "--sr_spatial", tmp_path / "sr"], 2, str(tmp_path / "sr"), "sr_spacetime", "32x32", "64")


@pytest.mark.row(7)
@pytest.mark.full
def test_both_widths_are_named_with_key_and_clip(fit_command, narrow_clip, refused, tmp_path):
    words = fit_command(tmp_path, f"--{NETWORK}.image_embedding_dim", 768)
    refused(words, 2, f"data.clip {narrow_clip} has embeddings of width 8", f"{NETWORK} was built for 768")


@pytest.mark.row(8)
@pytest.mark.full
@pytest.mark.parametrize(
    ("clip", "code", "said"),
    [
        ("open_clip:ViT-B-32:{tmp}/none.pt", 4, "none.pt: no such weights for clip ViT-B-32; download them"),
        ("open_clip:ViT-B-32", 2, "give open_clip:MODEL:WEIGHTS_FILE"),
        ("open_clip:ViT-Nowhere:{tmp}/none.pt", 2, "a MODEL open_clip has"),
        ("transformers:{tmp}/none", 4, "none: needs config.json and model.safetensors"),
        ("openai/clip-vit-base-patch32", 4, "no such file or folder; give a run folder"),
    ],
)
def test_a_clip_that_is_not_there_is_never_a_random_one(fit_command, refused, tmp_path, clip, code, said):
    refused(fit_command(tmp_path, "--data.clip", clip.format(tmp=tmp_path)), code, said)


@pytest.mark.row(1)
def test_debug_shows_where_an_error_of_a_configuration_comes_from(fit_command, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.lr"):
        main([*fit_command(tmp_path, "--model.lr", "-1"), "--debug"])


@pytest.mark.full
@pytest.mark.row(1, 2)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.config.network.chanels", "8"], "did you mean 'model.config.network.channels'?"),
        (["--data.framse", "8"], "did you mean 'data.frames'?"),
        (["--model.config.network.temporal.kernel", "3"], "did you mean 'model.config.network.temporal.kernel_size'?"),
        (["--data.fps.hihg", "8"], "unknown key 'data.fps.hihg'; did you mean 'data.fps.high'?"),
        (["--model.config.image_size", "large"], "model.config.image_size: expected int, got 'large'"),
        (["--model.config.objective.variance", "big"], "model.config.objective.variance: expected Literal["),
        (["--data.batch_size", "2.5"], "data.batch_size: expected int, got '2.5'"),
        (["--trainer.precision", "8-bit"], "trainer.precision"),
    ],
)
def test_a_key_deep_inside_is_named(fit_command, refused, tmp_path, words, said):
    refused(fit_command(tmp_path, *words), 2, said)


def test_every_range_says_what_it_takes():
    from lightning_mav.ranges import RANGES, check_ranges

    for name, allowed in RANGES.items():
        for value in (float("nan"), float("inf"), -1e9):
            with pytest.raises(ConfigError, match=re.escape(f"data.{name}: expected a number {allowed}, got")):
                check_ranges({"data": {"init_args": yaml.safe_load(yaml.safe_dump(nested(name, value)))}})


def nested(name, value):
    first, _, rest = name.partition(".")
    return {first: nested(rest, value)} if rest else {first: value}


def test_the_defaults_of_every_model_are_in_range():
    from lightning_mav.checkpoint.config import to_plain
    from lightning_mav.models import MODELS
    from lightning_mav.ranges import check_ranges

    with torch.device("meta"):
        for model in MODELS.values():
            check_ranges({"model": {"config": to_plain(model.config_class())}})


@pytest.mark.row(1)
def test_debug_shows_it_in_evaluations_too(refused_evaluation, monkeypatch):
    refused_evaluation(["sytem.path=x"], 2, "sytem")
    monkeypatch.setattr("sys.argv", ["eval", "sytem.path=x", "--debug"])
    try:
        with pytest.raises(HydraException):
            evaluation.main()
    finally:
        del os.environ[evaluation.DEBUG]
