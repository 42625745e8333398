import json
import os
import sys

import pytest

from lightning_mav.data.listing import list_files, require_regular_file
from lightning_mav.errors import DataError, MachineError


def touch(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_splits_are_disjoint_complete_fixed_and_independent_of_the_place(tmp_path):
    names = [f"{i % 3}/{i}.jpg" for i in range(120)]
    splits = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        touch(folder, [*names, "notes.md"])
        splits.append([[e.name for e in list_files(str(folder), (".jpg",), split)] for split in ("train", "val")])
    assert splits[0] == splits[1]
    train, val = splits[0]
    assert sorted(train + val) == sorted(names) and len(val) == 2


def test_few_files_still_leave_one_for_validation_and_one_file_serves_both(tmp_path):
    touch(tmp_path, ["a.jpg", "b.jpg"])
    assert [len(list_files(str(tmp_path), (".jpg",), split)) for split in ("train", "val")] == [1, 1]
    os.remove(tmp_path / "b.jpg")
    assert [len(list_files(str(tmp_path), (".jpg",), split)) for split in ("train", "val")] == [1, 1]


def test_all_captions_of_one_file_land_in_one_split(tmp_path):
    rows = [f"{i % 10}.jpg,caption {i}" for i in range(50)]
    (tmp_path / "list.csv").write_text("path,caption\n" + "\n".join(rows))
    train, val = (list_files(str(tmp_path / "list.csv"), (".jpg",), split) for split in ("train", "val"))
    assert len(val) == 5 and len(train) == 45
    assert {e.path for e in train}.isdisjoint(e.path for e in val)


def test_lists_name_files_beside_them_or_anywhere(tmp_path):
    rows = [{"path": "a.mp4", "text": "猫"}, {"path": "/b/c.mp4", "text": 'x, "y"'}]
    (tmp_path / "list.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    entries = [e for split in ("train", "val") for e in list_files(str(tmp_path / "list.jsonl"), (), split)]
    assert sorted((e.path, e.caption) for e in entries) == [("/b/c.mp4", 'x, "y"'), (str(tmp_path / "a.mp4"), "猫")]


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("a.csv", "file,caption\nx.jpg,one", "line 2.*column 'path'"),
        ("a.csv", "path,caption\nx.jpg,one\ny.jpg", "line 3.*None, not a text"),
        ("a.csv", 'path,caption\nx.jpg,"one', "near line"),
        ("a.jsonl", '{"path": "x", "caption": 3}', "line 1.*3, not a text"),
        ("a.jsonl", '{"path": "x", "caption": "a\\u0000b"}', "line 1.*NUL"),
        ("a.jsonl", '{"path": "x", "caption": "a\\ud83d"}', "line 1.*half of a surrogate pair"),
        ("a.jsonl", '{"path": "x", "caption": NaN}', "line 1.*nan, not a text"),
        ("a.jsonl", '{"path": "x"}\n{"path": ', "line 2"),
        ("a.jsonl", "[1]", "line 1"),
        ("a.csv", "path\n", "empty, expected rows"),
        ("a.csv", "", "empty file"),
        ("a.txt", "x.jpg", "not a .csv or .jsonl"),
    ],
)
@pytest.mark.row(27, 31)
def test_wrong_lists_are_named_with_the_line(tmp_path, name, text, where):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"{name}.*{where}"):
        list_files(str(tmp_path / name), (".jpg",), "train")


def test_a_list_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,caption\nx.jpg,caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.csv"):
        list_files(str(tmp_path / "a.csv"), (), "train")


@pytest.mark.row(31)
def test_an_empty_folder_is_named_with_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path.name}: empty.*\.jpg, \.png"):
        list_files(str(tmp_path), (".jpg", ".png"), "train")


@pytest.mark.row(26)
def test_empty_captions_are_warned_about(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("path,caption\nx.jpg,")
    list_files(str(tmp_path / "a.csv"), (), "train")
    assert "line 2: empty caption" in caplog.text


@pytest.mark.row(14, 16, 17)
def test_only_regular_files_with_content_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "zero", "link", "missing", "."):
        with pytest.raises(DataError, match=name):
            require_regular_file(str(tmp_path / name))


@pytest.mark.parametrize(
    ("head", "row", "path", "caption"),
    [
        ("path,text,num_frames,height,width,fps", "a.mp4,a cat,16,4,4,8", "a.mp4", "a cat"),  # Open-Sora
        (
            "videoid,contentUrl,duration,page_dir,name",
            "7,https://x/y,PT1S,0_9,a dog",
            "0_9/7.mp4",
            "a dog",
        ),  # WebVid
        ("file_name,text", "b/c.mp4,", "b/c.mp4", ""),  # Hugging Face
        ("video,caption", "d.mp4,a fox", "d.mp4", "a fox"),
    ],
)
def test_lists_of_other_projects_are_understood(tmp_path, head, row, path, caption):
    (tmp_path / "list.csv").write_text(f"{head}\n{row}\n")
    (entry,) = list_files(str(tmp_path / "list.csv"), (), "train")
    assert (entry.path, entry.caption) == (str(tmp_path / path), caption)


@pytest.mark.row(36)
def test_remote_files_in_a_list_are_refused(tmp_path):
    for name in ("https://host/a.jpg", "pipe:cat a.jpg", "s3://bucket/a.jpg"):
        (tmp_path / "a.csv").write_text(f"path\n{name}\n")
        with pytest.raises(DataError, match=r"line 2: '.*' is remote or a command"):
            list_files(str(tmp_path / "a.csv"), (), "train")


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MachineError, match=r"a\.parquet: parquet needs pyarrow"):
        list_files(str(tmp_path / "a.parquet"), (), "train")
