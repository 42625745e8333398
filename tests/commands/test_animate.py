"""Pictures become videos: given frames stay, the rest is made up, wrong input is one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mav.__main__ import main
from lightning_mav.animation import given_frames


@pytest.fixture
def picture(tmp_path):
    """A picture twice as wide as high."""
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (8, 16, 3), np.uint8)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def animate(folder, out, *options):
    return main(["animate", "--model", str(folder), "--out", str(out), *map(str, options)])


def frames_of(path):
    with Image.open(path) as image:
        frames = []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


@pytest.mark.parametrize("given", [("--image",), ("--last",), ("--image", "--last")])
def test_given_pictures_are_in_the_video(pipeline_folder, picture, tmp_path, given):
    options = [word for name in given for word in (name, picture)]
    assert animate(pipeline_folder, tmp_path / "a.webp", *options, "--until", "interpolation", "--frames", 5) == 0
    frames, wanted = frames_of(tmp_path / "a.webp"), np.asarray(Image.open(picture))[:, 4:12]
    assert frames.shape == (5, 8, 8, 3)
    same = [bool((frame == wanted).all()) for frame in frames]
    assert same == ["--image" in given, False, False, False, "--last" in given]
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["frames"] == 5


def test_super_resolution_follows_and_the_seed_decides(pipeline_folder, picture, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert (
            animate(pipeline_folder, tmp_path / f"{name}.webp", "--image", picture, "--frames", 3, "--seed", seed) == 0
        )
    a, b, c = (frames_of(tmp_path / f"{name}.webp") for name in "abc")
    assert a.shape == (3, 32, 32, 3) and (a == b).all() and (a != c).any()


def test_pictures_of_any_shape_are_cropped_to_the_network(picture):
    video, mask = given_frames({0: str(picture), 3: None}, 4, 4)
    assert video.shape == (1, 3, 4, 4, 4) and mask.tolist() == [[True, False, False, False]]
    assert not video[:, :, 1:].any() and torch.isfinite(video).all()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "give --image PICTURE, --last PICTURE or both"),
        (["--image", "none.png"], 3, "none.png"),
        (["--image", "{picture}", "--frames", "1"], 2, "frames 1"),
        (["--image", "{picture}", "--fps", "40"], 2, "fps 40"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(pipeline_folder, picture, tmp_path, capsys, options, code, said):
    options = [option.format(picture=picture) for option in options]
    assert animate(pipeline_folder, tmp_path / "a.mp4", *options) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
