import hashlib
import subprocess

import pytest

from lightning_mav.errors import CheckpointError
from lightning_mav.metrics import weights
from lightning_mav.metrics.weights import Weights, find_weights, overview, registry, search_folders

CONTENT = b"these are weights"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty home with a folder that LIGHTNING_MAV_WEIGHTS names."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("LIGHTNING_MAV_WEIGHTS", str(tmp_path / "own"))
    for folder in search_folders():
        folder.mkdir(parents=True)
    return tmp_path


def known(monkeypatch, **changes):
    entry = {
        "what": "a network",
        "filenames": ("a.pt", "b.pt"),
        "published": ("https://example.org/a",),
        "licence": "MIT",
    }
    monkeypatch.setattr(weights, "registry", lambda: {"net": Weights("net", **entry | changes)})


def test_the_explicit_path_comes_first_then_the_variable_then_the_caches(place, monkeypatch):
    known(monkeypatch)
    for folder in reversed(search_folders()):
        (folder / "b.pt").write_bytes(CONTENT)
        assert find_weights("net").path == folder / "b.pt"
    (place / "else.pt").write_bytes(CONTENT)
    assert find_weights("net", place / "else.pt").path == place / "else.pt"


def test_a_checksum_may_be_a_sha256_its_beginning_or_a_git_blob(place, monkeypatch):
    path = place / "own" / "a.pt"
    path.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    blob = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    for accepted in ({"sha256": (sha256,)}, {"sha256": ("0" * 8, sha256[:8])}, {"git_blob": (blob,)}):
        known(monkeypatch, **accepted)
        assert find_weights("net").verified and find_weights("net").sha256 == sha256
    for refused in ({"sha256": ("0" * 64,)}, {"git_blob": ("0" * 40,)}):
        known(monkeypatch, **refused)
        with pytest.raises(CheckpointError, match=rf"a.pt: is not net: expected .* found sha256 {sha256}"):
            find_weights("net")


def test_a_changed_file_is_checked_again(place, monkeypatch):
    known(monkeypatch)
    (place / "own" / "a.pt").write_bytes(CONTENT)
    before = find_weights("net").sha256
    (place / "own" / "a.pt").write_bytes(CONTENT + b"!")
    assert find_weights("net").sha256 != before and not find_weights("net").verified


def test_code_runs_only_on_a_known_checksum_or_on_trust(place, monkeypatch):
    (place / "own" / "a.pt").write_bytes(CONTENT)
    known(monkeypatch, runs_code=True)
    with pytest.raises(CheckpointError, match="runs its code, and no checksum is published; set trust=true"):
        find_weights("net")
    assert not find_weights("net", trust=True).verified
    known(monkeypatch, runs_code=True, sha256=(hashlib.sha256(CONTENT).hexdigest(),))
    assert find_weights("net").verified


def test_a_missing_file_is_one_line_with_name_checksum_folders_and_what_to_do(place, monkeypatch):
    known(monkeypatch, sha256=("abc123",))
    with pytest.raises(CheckpointError) as caught:
        find_weights("net")
    line = str(caught.value)
    parts = (
        "net",
        "a.pt or b.pt",
        "sha256 abc123",
        "https://example.org/a",
        "set LIGHTNING_MAV_WEIGHTS",
        *map(str, search_folders()),
    )
    assert "\n" not in line and all(part in line for part in parts)
    with pytest.raises(CheckpointError, match=r"is not in .*nowhere.pt"):
        find_weights("net", place / "nowhere.pt")


def test_every_known_file_says_what_it_is_and_where_it_is_published(place):
    assert {"inception", "i3d", "c3d", "videomae", "clip_vit_b32"} <= set(registry())
    for name, entry in registry().items():
        assert entry.filenames and entry.published and entry.licence and name in overview()
        assert all(set(digest) <= set("0123456789abcdef") for digest in (*entry.sha256, *entry.git_blob))
        assert all(len(digest) in (8, 64) for digest in entry.sha256) and all(len(d) == 40 for d in entry.git_blob)
    assert overview().count("here       no") == len(registry())
