"""One's own data by the command line: index, check and pack, with real processes and exit codes."""

import json
import tarfile

import pytest

from lightning_mav.__main__ import main
from lightning_mav.data.images import open_images


def data(*words):
    return main(["data", *map(str, words)])


def test_a_folder_becomes_shards_and_a_manifest_that_training_finds(image_folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    assert data("pack", "--source", image_folder, "--out", shards, "--samples_per_shard", 5) == 0
    assert "8 samples in 2 shards" in capsys.readouterr().out
    with pytest.raises(Exception, match="holds tar shards; run data index"):
        open_images(str(shards), "train", 8)
    assert data("index", "--source", shards, "--out", shards / "manifest.jsonl", "--num_workers", 2) == 0
    assert "8 images (0 without a caption) and 0 videos" in capsys.readouterr().out.splitlines()[-1]
    assert len(open_images(str(shards), "train", 8)) == 7
    assert data("check", "--source", shards, "--num_workers", 1) == 0
    assert "8 samples are good" in capsys.readouterr().out


def test_check_names_each_bad_sample_and_ends_in_3(image_folder, tmp_path, capsys):
    shards = tmp_path / "shards"
    data("pack", "--source", image_folder, "--out", shards)
    data("index", "--source", shards, "--out", tmp_path / "m.jsonl", "--num_workers", 1)
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()[1:]]
    with (shards / "00000.tar").open("r+b") as file:
        for row in (rows[2], rows[5]):
            file.seek(row["offset"] + 9)
            file.write(b"?")
    capsys.readouterr()
    assert data("check", "--source", tmp_path / "m.jsonl", "--num_workers", 1) == 3
    out, err = capsys.readouterr()
    assert [line.partition(": ")[0] for line in out.splitlines()] == [rows[2]["name"], rows[5]["name"]]
    assert "2 of 8 samples are bad" in err.splitlines()[-1]


def test_bad_samples_are_counted_in_the_last_line(tmp_path, capsys, image_folder):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(image_folder / "a.jpg", "../a.jpg")
        tar.add(image_folder / "a.jpg", "a.jpg")
    assert data("index", "--source", tmp_path / "a.tar", "--out", tmp_path / "m.jsonl", "--num_workers", 1) == 0
    out = capsys.readouterr().out
    assert "1 images (1 without a caption)" in out and out.endswith(f"1 bad, listed in {tmp_path}/m.jsonl.bad.jsonl\n")
    row = {"name": "a.tar/../a.jpg", "reason": "its path leaves the shard"}
    assert json.loads((tmp_path / "m.jsonl.bad.jsonl").read_text()) == row


def test_decoding_that_takes_too_long_is_recorded(video_folder, tmp_path, capsys):
    words = ("index", "--source", video_folder, "--out", tmp_path / "m.jsonl", "--deadline", "1e-4")
    assert data(*words) == 3
    assert "no sample can be used" in capsys.readouterr().err
    assert "not decoded after 0.0001 seconds" in (tmp_path / "m.jsonl.bad.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("index", "--source", "x", "--out", "folder"), 2, "out: a manifest ends in .jsonl, got 'folder'"),
        (("index", "--source", "x", "--out", "a.jsonl", "--num_workers", "0"), 2, "num_workers 0 must be at least 1"),
        (("check", "--source", "x", "--deadline", "0"), 2, "deadline 0.0 above 0 seconds"),
        (("check", "--source", "https://host/00000.tar"), 3, "'https://host/00000.tar' is remote or a command"),
        (("index", "--source", "pipe:cat a.tar", "--out", "a.jsonl"), 3, "is remote or a command"),
        (("pack", "--source", "x", "--out", "y", "--samples_per_shard", "0"), 2, "samples_per_shard: expected"),
    ],
)
@pytest.mark.row(36)
def test_wrong_arguments_are_one_line(words, code, message, capsys):
    assert data(*words) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_names_from_elsewhere_cannot_command_the_terminal(tmp_path, capsys, image_folder):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(image_folder / "a.jpg", "../\x1b[2J\udcff猫.jpg")
    assert data("check", "--source", tmp_path / "a.tar") == 3
    assert capsys.readouterr().out == "a.tar/../\\x1b[2J\\udcff猫.jpg: its path leaves the shard\n"
