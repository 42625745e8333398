"""Markers: what they hold, and that they catch every change; sha256sum is the independent reference."""

import io
import subprocess

import pytest

from lightning_mav.checkpoint.digest import Hashing, marker_of, sha256_of, verify
from lightning_mav.checkpoint.io import commit_folder, remove_checkpoint, write_checkpoint
from lightning_mav.errors import CheckpointError


@pytest.fixture
def checkpoint(tmp_path):
    write_checkpoint({"state_dict": {}}, tmp_path / "step=000001.ckpt")
    return tmp_path / "step=000001.ckpt"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of several files."""
    path = tmp_path / "step=000002.ckpt"
    (path / "more").mkdir(parents=True)
    for name in ("a", "more/b"):
        (path / name).write_bytes(name.encode() * 1000)
    commit_folder(path)
    return path


def test_what_is_written_through_hashing_has_the_digest_of_the_file(tmp_path):
    target = io.BytesIO()
    hashing = Hashing(target)
    assert hashing.write(b"some") + hashing.write(memoryview(b" bytes")) == 10
    (tmp_path / "file").write_bytes(target.getvalue())
    assert hashing.hexdigest() == sha256_of(tmp_path / "file")


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_sha256sum_reads_the_marker(kind, request):
    path = request.getfixturevalue(kind)
    verify(path)
    check = ["sha256sum", "--check", "--strict", marker_of(path).name]
    assert subprocess.run(check, cwd=path.parent, capture_output=True).returncode == 0


def test_a_changed_or_missing_file_is_named(checkpoint, folder):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    (folder / "more" / "b").unlink()
    with pytest.raises(CheckpointError, match=r"step=000001\.ckpt: damaged, its sha256 is not the one in step=000001"):
        verify(checkpoint)
    with pytest.raises(CheckpointError, match=r"step=000002\.ckpt/more/b: damaged"):
        verify(folder)


def test_a_link_is_verified_as_what_it_points_to(checkpoint):
    link = checkpoint.with_name("last.ckpt")
    link.symlink_to(checkpoint.name)
    verify(link)
    checkpoint.write_bytes(b"other")
    with pytest.raises(CheckpointError, match="damaged"):
        verify(link)


def test_a_file_that_was_copied_alone_passes(checkpoint, tmp_path):
    (tmp_path / "copy.ckpt").write_bytes(checkpoint.read_bytes()[:-1])
    verify(tmp_path / "copy.ckpt")


def test_removing_leaves_no_marker(checkpoint, folder, tmp_path):
    remove_checkpoint(checkpoint)
    remove_checkpoint(folder)
    assert list(tmp_path.iterdir()) == []
