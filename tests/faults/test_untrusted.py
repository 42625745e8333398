"""Rows 5, 34 to 36 and 52: whatever comes from elsewhere, none of its code runs.

Every payload would make the folder ``was_run``; every route must refuse it by name and leave no such folder.
"""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from eval.targets import check_targets
from lightning_mav.__main__ import main
from lightning_mav.checkpoint.digest import marker_lines, marker_of, sha256_of
from lightning_mav.checkpoint.io import write_checkpoint
from lightning_mav.data.readers import open_video
from lightning_mav.errors import CheckpointError, ConfigError, DataError
from lightning_mav.metrics.c3d import load_c3d
from lightning_mav.metrics.weights import VARIABLE, find_weights
from tests.faults.tiers import tiered

SENTINEL = "was_run"


class Payload:
    def __reduce__(self):
        return os.mkdir, (SENTINEL,)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """Work in an empty folder, into which no payload may have put anything when the test is over."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(tmp_path)  # as "python -m" does
    yield
    assert not list(tmp_path.rglob(f"{SENTINEL}*"))


def test_the_payload_would_run(tmp_path):
    torch.save({"state_dict": Payload()}, "evil.ckpt")
    torch.load("evil.ckpt", weights_only=False)
    pickle.loads(pickle.dumps({"x": Payload()})) if not Path(SENTINEL).exists() else None
    assert Path(SENTINEL).is_dir()
    os.rmdir(SENTINEL)


# checkpoints and models


def evil_checkpoint(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "global_step": 3, "format": 1, **content}, path)
    marker_of(path).write_bytes(marker_lines({path.name: sha256_of(path)}))  # whoever writes the one writes the other
    return path


CHECKPOINTS = {
    "fit": lambda words, file: words("run", "--ckpt_path", file),
    "validate": lambda words, file: ["validate", *words("run", "--ckpt_path", file)[1:]],
    "predict": lambda words, file: ["predict", *words("run", "--ckpt_path", file)[1:]],
    "init_from": lambda words, file: words("run", "--model.init_from", file),
    "clip": lambda words, file: words("run", "--data.clip", file),
    "clip of open_clip": lambda words, file: words("run", "--data.clip", f"open_clip:ViT-B-32:{file}"),
    "export": lambda words, file: ["export", "--model", file, "--out", "out"],
    "convert": lambda words, file: ["convert", "--source", file, "--out", "out"],
}


@pytest.mark.row(52)
@pytest.mark.parametrize("route", tiered(CHECKPOINTS, "export", "convert"))
def test_a_pickle_in_place_of_a_checkpoint(fit_command, refused, tmp_path, route):
    file = evil_checkpoint(tmp_path / "evil.ckpt", x=Payload())
    refused(CHECKPOINTS[route](fit_command, file), 4, "evil.ckpt")


@pytest.mark.row(52)
def test_a_pickle_that_the_environment_would_let_run(fit_command, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = evil_checkpoint(tmp_path / "evil.ckpt", x=Payload())
    refused(["validate", *fit_command("run", "--ckpt_path", file)[1:]], 4, "evil.ckpt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Payload()))
    refused(["convert", "--source", tmp_path / "raw.pt", "--out", "out"], 4, "raw.pt")


@pytest.mark.row(52)
@pytest.mark.parametrize("verb", tiered(["validate", "fit"], "validate"))
def test_a_checkpoint_elsewhere(fit_command, refused, verb):
    words = fit_command("run", "--ckpt_path", "http://127.0.0.1:9/evil.ckpt")
    refused([verb, *words[1:]], 4, "http://127.0.0.1:9/evil.ckpt", "local files only")


@pytest.mark.row(52)
def test_a_run_folder_whose_newest_checkpoint_is_a_pickle(pipeline_folder, refused, tmp_path):
    evil_checkpoint(tmp_path / "run" / "checkpoints" / "step=000003.ckpt", x=Payload())
    words = ["generate", "--model", pipeline_folder, "--prompt", "a ring", "--out", "a.mp4"]
    refused([*words, "--decoder", tmp_path / "run"], 4, "run")


@pytest.mark.row(52)
@pytest.mark.full
def test_hyper_parameters_that_name_a_class_are_not_built(fit_command, tmp_path):
    """Lightning builds what ``_class_path`` and ``_instantiator`` of a checkpoint name, where it is let to."""
    assert main(fit_command("run", "--trainer.max_steps", "1")) == 0
    newest = next(Path("run/checkpoints").glob("step=*.ckpt"))
    content = torch.load(newest, weights_only=True)
    named = {
        "_instantiator": "os.mkdir",
        "_class_path": "subprocess.Popen",
        "path": SENTINEL,
        "args": ["mkdir", SENTINEL],
    }
    write_checkpoint({**content, "hyper_parameters": named, "datamodule_hyper_parameters": named}, "named.ckpt")
    words = fit_command("other", "--ckpt_path", "named.ckpt", "--trainer.limit_val_batches", 1)
    assert main(["validate", *words[1:]]) in (0, 4)  # read without the names, or refused for lack of a checksum


@pytest.mark.row(52)
def test_objects_inside_arrays(tmp_path):
    np.savez("evil.npz", mean=np.array([Payload()], dtype=object))
    with pytest.raises(CheckpointError, match=r"evil\.npz"):
        load_c3d(Path("evil.npz"), Path("evil.npz"))


@pytest.mark.row(52)
@pytest.mark.parametrize("name", ["inception", "clip_vit_b32", "i3d"])
def test_weights_of_a_metric_that_are_a_pickle(tmp_path, monkeypatch, name):
    torch.save(Payload(), tmp_path / "evil.pth")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(CheckpointError, match=r"evil\.pth: is not"):
        find_weights(name, tmp_path / "evil.pth")


@pytest.mark.row(52)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "os.mkdir"}, "holds the model os.mkdir, expected"),
        ({"model": ["decoder"]}, "holds the model"),
        ({"config": {"network": {"_target_": "os.mkdir"}}}, "_target_"),
        ({"config": {"network": "os.mkdir"}}, "configuration"),
        ({"config": {"network": {"channels": -8}}}, "configuration"),
        ({"config": {"network": {"channels": "8"}}}, "configuration"),
        ({"config": {"objective": {"schedule": "__class__"}}}, "configuration"),
    ],
)
def test_a_model_folder_that_names_something_else(pipeline_folder, refused, tmp_path, change, said):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((pipeline_folder / "decoder" / name).read_bytes())
    description = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(description | change))
    refused(["export", "--model", tmp_path / "model", "--out", "out"], 4, "model", said)


@pytest.mark.row(52)
@pytest.mark.parametrize("header", [b"\xff" * 8, (2**40).to_bytes(8, "little"), (64).to_bytes(8, "little"), b""])
def test_safetensors_with_a_header_that_lies(pipeline_folder, refused, tmp_path, header):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((pipeline_folder / "prior" / "config.json").read_bytes())
    entry = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    (tmp_path / "model" / "model.safetensors").write_bytes(header + json.dumps(entry).encode())
    refused(["export", "--model", tmp_path / "model", "--out", "out"], 4, "model")


@pytest.mark.row(52)
@pytest.mark.full
def test_a_transformers_folder_with_code_of_its_own(fit_command, refused, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / SENTINEL)!r})\n")
    auto = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(auto | {"architectures": ["CLIPModel"]}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    refused(fit_command("run", "--data.clip", f"transformers:{folder}"), 4, "clip")


# configurations of training

MKDIR = {"class_path": "os.mkdir", "init_args": {"path": SENTINEL}}
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", SENTINEL]}}
WRITE = {"class_path": "pathlib.Path.write_text", "init_args": {"data": SENTINEL}}
LAMBDA = {"class_path": "lightning.pytorch.callbacks.LambdaCallback"}
DDP = {"class_path": "lightning.pytorch.strategies.DDPStrategy"}
NAMED = {
    "model": {"model": MKDIR},
    "data": {"data": POPEN},
    "inside the data": {"data": {"init_args": {"fps": WRITE}}},
    "inside the model": {"model": {"init_args": {"config": {"network": POPEN}}}},
    "callback": {"trainer": {"callbacks": [POPEN]}},
    "logger": {"trainer": {"logger": MKDIR}},
    "profiler": {"trainer": {"profiler": POPEN}},
    "plugin": {"trainer": {"plugins": [POPEN]}},
    "function of a callback": {"trainer": {"callbacks": [LAMBDA | {"init_args": {"setup": "os.abort"}}]}},
    "where any type is accepted": {"trainer": {"strategy": DDP | {"init_args": {"ddp_comm_state": POPEN}}}},
    "torch.load": {"trainer": {"callbacks": [LAMBDA | {"init_args": {"setup": "torch.load"}}]}},
    "opens a browser": {"trainer": {"callbacks": [{"class_path": "antigravity.webbrowser"}]}},
    "parser": {"trainer": {"callbacks": [{"class_path": "jsonargparse.set_parsing_settings"}]}},
}


@pytest.mark.row(5)
@pytest.mark.parametrize("place", tiered(NAMED, "inside the data", "where any type is accepted"))
def test_code_that_a_configuration_names(fit_command, refused, place):
    Path("evil.yaml").write_text(yaml.safe_dump(NAMED[place]))
    refused(fit_command("run", "--config", "evil.yaml"), 2)


@pytest.mark.row(5)
@pytest.mark.parametrize(
    "words",
    [
        ["--model", "os.system"],
        ["--data", "pathlib.Path.write_text"],
        ["--trainer.callbacks+=torch.load"],
        ["--model.config.network", '{"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", "was_run"]}}'],
        ["--data.fps", "!!python/object/apply:os.mkdir [was_run]"],
        ["--model.lr", "!!python/object/new:os.system ['mkdir was_run']"],
    ],
)
@pytest.mark.full
def test_code_that_an_option_names(fit_command, refused, words):
    refused(fit_command("run", *words), 2)


@pytest.mark.row(5)
def test_a_run_folder_whose_configuration_builds_objects(refused):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(f"model: !!python/object/apply:os.mkdir [{SENTINEL}]\n")
    refused(["validate", "--run", "run"], 2, "run/config.yaml", "not valid YAML")


@pytest.mark.row(5)
@pytest.mark.full
def test_a_users_own_callback_may_be_named(fit_command):
    Path("my_callback.py").write_text("from lightning.pytorch import Callback\n\n\nclass Mine(Callback):\n    pass\n")
    assert main([*fit_command("run", "--trainer.callbacks+=my_callback.Mine", "--trainer.max_steps", "1")]) == 0


# configurations of evaluations

EVALUATION = ["system=folder", "system.path=."]
TARGETS = [
    "os.mkdir",
    "builtins.eval",
    "pathlib.Path.write_text",
    "torch.load",
    "evil.mkdir",
    "evaluation.evil",
    "eval.store.write_text",
    "eval.folders.os.mkdir",
    "eval.zero_shot.os.mkdir",
    "lightning_mav.checkpoint.io.os.mkdir",
    "lightning_mav.checkpoint.io.write_atomically",
    "eval.systems",
    "eval.folders.Folder.generate",
]


@pytest.mark.row(5)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_no_configuration_of_ours_names(tmp_path, target):
    folder = Path(__file__).parents[2] / "configs" / "eval"
    Path("evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / SENTINEL)!r})\n")
    for config in ({"system": {"_target_": target}}, {"a": [{"b": {"_target_": target, "path": SENTINEL}}]}):
        with pytest.raises(ConfigError, match=r"_target_: '.*' is not built"):
            check_targets(config, folder)
    check_targets({"system": {"_target_": "eval.folders.Folder"}}, folder)


@pytest.mark.row(5)
@pytest.mark.parametrize("target", ["os.mkdir", "evil.mkdir", "eval.folders.os.mkdir", 3])
def test_targets_of_files_are_ours_too(target):
    Path("configs").mkdir()
    Path("configs/evil.yaml").write_text(f"_target_: {target}\n")
    with pytest.raises(ConfigError, match="is not built"):
        check_targets({"_target_": target}, Path("configs"))


@pytest.mark.row(5)
@pytest.mark.parametrize(
    "words",
    [
        ["system._target_=os.mkdir", f"+system.path={SENTINEL}"],
        ["benchmark._target_=subprocess.run", f"+benchmark.args=[mkdir,{SENTINEL}]"],
        [f"+extractor.evil={{_target_: pathlib.Path.write_text, self: {SENTINEL}, data: x}}"],
        [f"+hydra.callbacks.evil={{_target_: os.mkdir, path: {SENTINEL}}}"],
        [f"+hydra.callbacks.evil={{_target_: eval.store.write_text, path: {SENTINEL}, content: x}}"],
        [f"hydra.job_logging.handlers.evil={{(): os.mkdir, path: {SENTINEL}}}"],
        [f"hydra={{callbacks: {{evil: {{_target_: os.mkdir, path: {SENTINEL}}}}}}}"],
        ["hydra/job_logging=evil"],
        ["hydra.launcher._target_=os.mkdir", f"+hydra.launcher.path={SENTINEL}"],
        ["system@hydra.callbacks.evil=folder"],
        ["--config-dir", "evil"],
        ["--config-dir=evil"],
        ["--config-path", "evil"],
        ["-cd", "evil"],
        ["-cn", "evil"],
        ["--config-n", "evil"],
        ["--experimental-rerun", "evil.pickle"],
        ["--exp=evil.pickle"],
    ],
    ids=lambda words: words[0][:30],
)
def test_code_that_a_word_of_an_evaluation_names(refused_evaluation, words):
    Path("evil").mkdir()
    Path("evil/evil.yaml").write_text(f"hydra:\n  callbacks:\n    evil: {{_target_: os.mkdir, path: {SENTINEL}}}\n")
    Path("evil.pickle").write_bytes(pickle.dumps(Payload()))
    refused_evaluation([*EVALUATION, *words], 2)


# data


def evil_tar(path):
    with tarfile.open(path, "w") as tar:
        for name in ("../was_run.png", "/tmp/was_run.png", "a.pyd", "a.pickle", "a.pth", "a.png"):
            content = pickle.dumps(Payload())
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)


@pytest.mark.row(34, 35)
@pytest.mark.parametrize("verb", tiered(["check", "pack"], "pack"))
def test_members_of_a_shard_that_would_do_harm(capsys, tmp_path, verb):
    evil_tar("evil.tar")
    assert main(["data", verb, "--source", "evil.tar", *(["--out", "out"] if verb == "pack" else [])]) == 3
    shown = capsys.readouterr()
    assert "evil.tar/../was_run.png" in shown.out + shown.err and "Traceback" not in shown.err
    if verb == "check":
        assert all(f"evil.tar/{name}" in shown.out for name in ("a.pyd", "a.pickle", "a.pth", "a.png", "link.png"))


@pytest.mark.row(36)
@pytest.mark.parametrize(
    "source", ["pipe:mkdir was_run", "http://127.0.0.1:9/0.tar", "https://x/0.tar", "s3://a/0.tar", "file:///0.tar"]
)
@pytest.mark.parametrize("route", ["index", "check", "pack", "prepare", "list"])
def test_a_shard_that_is_a_command_or_elsewhere(refused, source, route):
    Path("list.jsonl").write_text(json.dumps({"path": source}))
    words = {"index": ["--out", "m.jsonl"], "pack": ["--out", "out"], "prepare": ["--out", "out"], "check": []}
    verb, named = ("check", "list.jsonl") if route == "list" else (route, source)
    refused(["data", verb, "--source", named, *words[verb]], 3, source, "remote or a command")


@pytest.mark.row(36)
@pytest.mark.full
def test_training_takes_no_command_for_data_either(fit_command, refused):
    refused(fit_command("run", "--data.source", "pipe:mkdir was_run"), 3, "remote or a command")


PLAYLISTS = {
    "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "hls.m4v": "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "concat.mkv": "ffconcat version 1.0\nfile '/etc/passwd'\nfile 'concat:a|b'\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "sdp.avi": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "image.mp4": "<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
}


@pytest.mark.row(15, 52)
@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_opens_nothing(name):
    Path(name).write_text(PLAYLISTS[name])
    with pytest.raises(DataError, match=name):
        open_video(name).frames(np.arange(1))  # one is taken for a bare stream of pictures, and has none


@pytest.mark.row(27, 52)
def test_objects_in_a_list_are_no_captions(image_folder, refused, tmp_path):
    row = {"path": str(image_folder / "a.jpg"), "caption": {"py/object": "os.mkdir", "py/tuple": [SENTINEL]}}
    Path("list.jsonl").write_text(json.dumps(row))
    refused(["data", "check", "--source", "list.jsonl"], 3, "list.jsonl, line 1", "not a text")


@pytest.mark.row(52)
def test_prompts_are_text_whatever_they_say(pipeline_folder, tmp_path):
    texts = [f"!!python/object/apply:os.mkdir [{SENTINEL}]", f"$(mkdir {SENTINEL})", f"../{SENTINEL}", "${oc.env:HOME}"]
    Path("prompts.txt").write_text("\n".join(texts))
    words = [
        "generate",
        "--model",
        str(pipeline_folder),
        "--prompts",
        "prompts.txt",
        "--out",
        "out",
        "--until",
        "prior",
    ]
    assert main(words) == 0
    assert len(list(Path("out").glob("*.safetensors"))) == len(texts)
    for path in Path("out").iterdir():
        path.unlink()  # their names hold the word too


@pytest.mark.row(25)
def test_an_image_of_a_format_that_runs_a_program_is_not_opened():
    """Pillow hands EPS to Ghostscript."""
    Path("a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(was_run) (w) file\n")
    with pytest.raises(DataError, match=r"a\.png"):
        from lightning_mav.data.images import read_image

        read_image("a.png")
    with Image.open("a.png") as image:
        assert image.format == "EPS"  # which it would be, were it not for the formats that are named
