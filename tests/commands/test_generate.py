"""The whole command: files, names, records, determinism, and one line for each thing that can be asked wrongly."""

import json
import re
import shlex
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightning_mav.__main__ import main
from lightning_mav.commands.generate import Part
from lightning_mav.data.readers import open_video
from lightning_mav.pipeline import PARTS
from lightning_mav.results import numbered, slug

PROMPTS = ["a red ring on a gray background", "eine blaue Straße", "a dog"]


def generate(folder, out, *options, prompt="a red ring"):
    text = ["--prompt", prompt] if prompt is not None else []
    return main(["generate", "--model", str(folder), "--out", str(out), *text, *map(str, options)])


def frames_of(path):
    video = open_video(str(path))
    return video.frames(np.arange(len(video.timestamps)))


def pixels(path):
    """The frames of a small WebP, which are exact."""
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
    return np.stack(frames)


def prompts_file(tmp_path, prompts=PROMPTS):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*prompts, "", "  "]), encoding="utf-8")
    return path


def test_the_parts_are_those_of_the_pipeline():
    assert get_args(Part) == PARTS


def test_one_prompt_becomes_video_sheet_and_record(pipeline_folder, tmp_path, capsys):
    assert generate(pipeline_folder, tmp_path / "new" / "ring.mp4", "--frames", 4, "--frame_skip", 3) == 0
    shown = capsys.readouterr()
    assert str(tmp_path / "new" / "ring.mp4") in shown.out
    assert all(part in shown.err for part in PARTS)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"ring.mp4", "ring.png", "ring.json"}
    video = open_video(str(tmp_path / "new" / "ring.mp4"))
    assert len(video.timestamps) == 3 * 3 + 1
    assert video.timestamps[-1] == pytest.approx(9 / 18, abs=1e-3)
    assert video.frames(np.arange(1)).shape == (1, 32, 32, 3)
    with Image.open(tmp_path / "new" / "ring.png") as sheet:
        assert sheet.size == (8 * 66 - 2, 64)


def test_the_command_in_the_record_makes_the_same_bytes(pipeline_folder, tmp_path):
    options = [
        "--frames",
        3,
        "--seed",
        7,
        "--until",
        "decoder",
        "--steps.decoder",
        3,
        "--sampler",
        "ddim",
        "--eta.decoder",
        2,
        "--fps",
        12.5,
    ]
    assert generate(pipeline_folder, tmp_path / "a.mp4", *options) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["settings"]["prompt"] == "a red ring"
    assert record["settings"]["decoder"] == str(pipeline_folder / "decoder")
    assert set(record["versions"]) >= {"lightning_mav", "torch", "python"}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "a.mp4").unlink()
    assert main(shlex.split(record["command"])[3:]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_order_and_batch_size_do_not_change_a_prompts_video(pipeline_folder, tmp_path):
    options = ["--frames", 2, "--until", "decoder", "--suffix", "webp"]
    forward, backward = prompts_file(tmp_path), tmp_path / "backward.txt"
    backward.write_text("\n".join(reversed(PROMPTS)), encoding="utf-8")
    for out, file, batch in (("a", forward, 3), ("b", backward, 2)):
        assert (
            generate(pipeline_folder, tmp_path / out, "--prompts", file, "--batch_size", batch, *options, prompt=None)
            == 0
        )
    made = [pixels(path) for path in sorted((tmp_path / "a").glob("*.webp"))]
    again = [pixels(path) for path in sorted((tmp_path / "b").glob("*.webp"), reverse=True)]
    for one, other in zip(made, again, strict=True):
        assert abs(one - other).max() <= 1  # batches of another size round differently
    assert abs(made[0] - made[1]).mean() > 5
    assert generate(pipeline_folder, tmp_path / "c.webp", *options[:4], prompt=PROMPTS[1]) == 0
    assert abs(pixels(tmp_path / "c.webp") - made[1]).max() <= 1


def test_seed_and_fps_change_the_video(pipeline_folder, tmp_path):
    options = {"a": [], "b": ["--seed", 1], "c": ["--fps", 30]}
    for name, extra in options.items():
        assert generate(pipeline_folder, tmp_path / f"{name}.webp", "--frames", 2, "--until", "decoder", *extra) == 0
    a, b, c = (pixels(tmp_path / f"{name}.webp") for name in "abc")
    assert abs(a - b).mean() > 5 and (a != c).any()


def test_a_file_of_prompts_fills_a_folder(pipeline_folder, tmp_path):
    file = prompts_file(tmp_path)
    assert (
        generate(pipeline_folder, tmp_path / "out", "--prompts", file, "--frames", 1, "--until", "decoder", prompt=None)
        == 0
    )
    stems = ["000-a-red-ring-on-a-gray-background", "001-eine-blaue-strasse", "002-a-dog"]
    names = {f"{stem}.{suffix}" for stem in stems for suffix in ("mp4", "png", "json")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    record = json.loads((tmp_path / "out" / "001-eine-blaue-strasse.json").read_text(encoding="utf-8"))
    assert record["settings"]["prompt"] == PROMPTS[1]


def test_the_prior_alone_writes_an_embedding(pipeline_folder, tmp_path):
    assert generate(pipeline_folder, tmp_path / "e.safetensors", "--until", "prior") == 0
    assert load_file(tmp_path / "e.safetensors")["image_embedding"].shape == (8,)
    assert (tmp_path / "e.json").exists()


def test_a_replaced_model_is_used_and_the_result_resized(pipeline_folder, tmp_path):
    shutil.copytree(pipeline_folder, tmp_path / "part", ignore=lambda _, names: {"decoder"} & set(names))
    decoder = ["--decoder", pipeline_folder / "decoder"]
    extra = ["--until", "decoder", "--frames", 2, "--output_size", 24]
    assert generate(tmp_path / "part", tmp_path / "a.mp4", *decoder, *extra) == 0
    assert frames_of(tmp_path / "a.mp4").shape == (2, 24, 24, 3)


@pytest.mark.parametrize(
    "text", ["a/b\\c: d?", "日本語のリング", "🙂🙂", "../../etc", "x" * 300, "naïve café", "\ud800 q", " . "]
)
def test_names_are_safe_for_any_text(tmp_path, text):
    name = numbered(tmp_path, [text], ".mp4")[0].name
    assert re.fullmatch(r"000(-[^\W_]+)*\.mp4", name)
    (tmp_path / name).touch()
    assert slug("日本語 のリング") == "日本語-のリング"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--prompt", " "], 2, "prompt 1 is empty"),
        ([], 2, "either --prompt TEXT or --prompts FILE"),
        (["--prompts", "{tmp}/none.txt"], 3, "none.txt: cannot be read"),
        (["--prompt", "a", "--fps", "31"], 2, "fps 31"),
        (["--prompt", "a", "--frames", "0"], 2, "frames: expected at least 1, got 0"),
        (["--prompt", "a", "--frames", "1"], 2, "frames"),
        (["--prompt", "a", "--frame_skip", "16"], 2, "frame_skip 16"),
        (["--prompt", "a", "--until", "encoder"], 2, "until"),
        (["--prompt", "a", "--steps", "1001"], 2, "1001 steps"),
        (["--prompt", "a", "--eta.decoder", "-1"], 2, "sampling.eta: -1.0 is negative"),
        (["--prompt", "a", "--steps.encoder", "5"], 2, "no part is called 'encoder'"),
        (["--prompt", "a", "--decoder", "{model}/prior"], 4, "holds the model prior, expected decoder"),
        (["--prompt", "a", "--decoder", "{tmp}/none"], 4, "none: no such file or folder"),
        (["--prompt", "a", "--model", "{tmp}/none"], 4, "none: no such file or folder"),
        (["--prompt", "a", "--model", "{model}/decoder"], 4, "is one model"),
        (["--prompt", "a", "--out", "{tmp}/a.avi"], 2, "cannot write '.avi' files"),
        (["--prompt", "a", "--out", "{tmp}"], 2, "is a folder"),
        (["--prompt", "a", "--out", "{tmp}/file/a.mp4"], 5, "cannot write into"),
        (["--prompt", "a", "--until", "prior"], 2, ".safetensors"),
        (["--prompt", "a", "--device", "cuda"], 5, "no GPU"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_one_line(pipeline_folder, tmp_path, capsys, monkeypatch, options, code, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "file").touch()
    options = [option.format(tmp=tmp_path, model=pipeline_folder) for option in options]
    assert generate(pipeline_folder, tmp_path / "a.mp4", *options, prompt=None) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not list(tmp_path.glob("a.*"))


def test_a_missing_part_is_named_before_any_work(pipeline_folder, tmp_path, capsys):
    shutil.copytree(pipeline_folder, tmp_path / "part", ignore=lambda _, names: {"sr_spatial"} & set(names))
    assert generate(tmp_path / "part", tmp_path / "a.mp4") == 4
    assert (
        capsys.readouterr().err
        == "error: no sr_spatial among the models; train it, or name its folder with --sr_spatial\n"
    )


@pytest.mark.row(6, 7)
def test_models_of_another_clip_are_named_before_any_work(pipeline_folder, tmp_path, capsys):
    from lightning_mav.checkpoint.models import save_model
    from lightning_mav.models.prior import Prior, PriorConfig
    from lightning_mav.networks.prior_transformer import PriorTransformerConfig

    network = PriorTransformerConfig(embedding_dim=12, states_dim=8, width=16, num_layers=1, num_heads=2)
    save_model(Prior(PriorConfig(network)), tmp_path / "prior")
    assert generate(pipeline_folder, tmp_path / "a.mp4", "--prior", tmp_path / "prior") == 4
    assert "width 8, but the prior works with 12" in capsys.readouterr().err
