"""Tars are read by index as ``tarfile`` would extract them, and what is wrong with one is never passed over."""

import io
import os
import tarfile

import numpy as np
import pytest

from lightning_mav.data.shards import Extent, scan, write_shard
from lightning_mav.errors import DataError


def packed(path, contents, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def random_contents(num=8):
    draw = np.random.default_rng(0)
    names = [f"{i:05d}.jpg" for i in range(num - 3)] + ["a/b/c d.txt", "猫/é.json", "long" * 60 + ".png"]
    return {name: draw.bytes(int(draw.integers(0, 3000))) for name in names}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(tmp_path, format):  # noqa: A002 - tarfile's own word
    contents = random_contents()
    members, refused = scan(packed(tmp_path / "a.tar", contents, format=format))
    read = {member.name: member.extent.read() for member in members}
    assert read == contents and list(read) == list(contents) and not refused


def test_a_part_of_a_file_behaves_like_a_file_of_its_own(tmp_path):
    data = np.random.default_rng(0).bytes(5000)
    (tmp_path / "a").write_bytes(b"x" * 700 + data + b"y" * 700)
    draw, reference = np.random.default_rng(1), io.BytesIO(data)
    with Extent(str(tmp_path / "a"), 700, 5000).open() as part:
        for _ in range(200):
            whence, num = int(draw.integers(3)), int(draw.integers(0, 3000))
            place = (
                int(draw.integers(0, 6000)) if whence == 0 else -int(draw.integers(0, min(5000, reference.tell() + 1)))
            )
            assert part.seek(place, whence) == reference.seek(place, whence) == part.tell()
            assert part.read(num) == reference.read(num)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (tarfile.TarInfo("/etc/passwd.jpg"), "leaves the shard"),
        (tarfile.TarInfo("a/../../b.jpg"), "leaves the shard"),
        (tarfile.TarInfo("..\\b.jpg"), "leaves the shard"),
        (tarfile.TarInfo("C:\\b.jpg"), "leaves the shard"),
        (special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "link"),
        (special("a.jpg", tarfile.LNKTYPE, "b.jpg"), "link"),
        (special("a.jpg", tarfile.CHRTYPE), "device"),
        (special("a.jpg", tarfile.FIFOTYPE), "device or pipe"),
        *[(tarfile.TarInfo(f"a{ending}"), "pickle") for ending in (".pkl", ".pyd", ".pth", ".PTH", ".pickle")],
        (tarfile.TarInfo("good.jpg"), "second"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.row(34, 35)
def test_members_that_could_do_harm_are_refused_by_name(tmp_path, member, why):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        good = tarfile.TarInfo("good.jpg")
        good.size = 3
        tar.addfile(good, io.BytesIO(b"abc"))
        tar.addfile(member)
    members, refused = scan(str(tmp_path / "a.tar"))
    assert [(m.name, m.extent.read()) for m in members] == [("good.jpg", b"abc")]
    assert [one.name for one in refused] == [member.name] and why in refused[0].reason


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed_tars_are_refused(tmp_path, compression):
    with tarfile.open(tmp_path / "a.tar", f"w:{compression}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(DataError, match=r"a\.tar: compressed by \w+"):
        scan(str(tmp_path / "a.tar"))


def test_sparse_tars_are_refused(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"}
    info.size = 512
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"1\n0\n10\n".ljust(512, b"\0")))
    with pytest.raises(DataError, match=r"a\.tar: sparse"):
        scan(str(tmp_path / "a.tar"))


@pytest.mark.row(32)
def test_a_cut_anywhere_is_noticed(tmp_path):
    whole = scan(packed(tmp_path / "a.tar", random_contents()))
    data = (tmp_path / "a.tar").read_bytes()
    end = len(data.rstrip(b"\0")) // 512 * 512 + 1024  # the last block of contents and one of the zeros after it
    for cut in range(1, end, 241):
        (tmp_path / "a.tar").write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"a\.tar: .*(cut short|no tar)"):
            scan(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes(data[:end])
    assert scan(str(tmp_path / "a.tar")) == whole


@pytest.mark.row(33)
def test_damage_to_any_header_is_noticed(tmp_path):
    members, _ = scan(packed(tmp_path / "a.tar", random_contents(), format=tarfile.GNU_FORMAT))
    data = (tmp_path / "a.tar").read_bytes()
    for member in members:
        header = member.extent.offset - 512
        (tmp_path / "a.tar").write_bytes(data[:header] + os.urandom(512) + data[header + 512 :])
        with pytest.raises(DataError, match=r"a\.tar: .*damaged"):
            scan(str(tmp_path / "a.tar"))


def test_a_file_that_has_become_shorter_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"a\.tar: ends before byte 101"):
        Extent(str(tmp_path / "a.tar"), 90, 11).read()
    with pytest.raises(DataError, match="missing"):
        Extent(str(tmp_path / "missing.tar"), 0, 1).read()


def test_written_shards_hold_what_was_given_and_nothing_of_time_or_place(tmp_path):
    contents = random_contents()
    (tmp_path / "b").write_bytes(b"from a file")
    members = [*contents.items(), ("b.txt", Extent(str(tmp_path / "b"), 5, 6))]
    written = [io.BytesIO(), io.BytesIO()]
    for file in written:
        write_shard(file, members)
    assert written[0].getvalue() == written[1].getvalue()
    with tarfile.open(fileobj=io.BytesIO(written[0].getvalue())) as tar:
        read = {info.name: (tar.extractfile(info).read(), info.mtime, info.uid) for info in tar}
    assert read == {name: (data, 0, 0) for name, data in [*contents.items(), ("b.txt", b"a file")]}
