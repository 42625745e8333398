"""Parts of files are the same by call and by map; a file that changes meanwhile is noticed and ends no run unnamed."""

import os

import numpy as np
import pytest
from torch.utils.data import Dataset

from lightning_mav.data import opened
from lightning_mav.data.loading import Loader
from lightning_mav.data.opened import descriptor, rows
from lightning_mav.data.order import EndlessBatches
from lightning_mav.errors import DataError

SHAPE = (40, 60, 7)
ARRAY = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(params=[None, "worker"])
def _process(request, monkeypatch):
    """The process that trains, which reads by calls, and one that reads for it, which maps."""
    monkeypatch.setattr(opened, "get_worker_info", lambda: request.param)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"head" + ARRAY.tobytes() + b"more")
    return path


@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("indices", [[0], [3, 1, 1, 39], [], range(40)])
def test_parts_are_those_of_the_array(file, indices):
    read = rows(str(file), 4, SHAPE, np.array(indices, np.int64))
    assert read.flags.writeable and np.array_equal(read, ARRAY[list(indices)])


@pytest.mark.usefixtures("_process")
def test_what_ends_too_early_is_nothing(file):
    os.truncate(file, 3 + ARRAY.nbytes)
    assert rows(str(file), 4, SHAPE, np.array([39])) is None


@pytest.mark.usefixtures("_process")
def test_a_file_that_is_replaced_or_written_to_is_read_anew(file, tmp_path):
    first = np.array([0])
    assert rows(str(file), 4, SHAPE, first).sum() == ARRAY[0].sum()
    (tmp_path / "b").write_bytes(bytes(4 + ARRAY.nbytes))
    (tmp_path / "b").replace(file)
    assert rows(str(file), 4, SHAPE, first).sum() == 0
    before = file.stat()
    os.truncate(file, 10)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as where a clock is too coarse to tell
    assert rows(str(file), 4, SHAPE, first) is None


@pytest.mark.parametrize("error", [OSError(19, "No such device"), ValueError("cannot mmap an empty file")])
def test_where_nothing_can_be_mapped_a_worker_reads(file, monkeypatch, error):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(opened, "get_worker_info", lambda: "worker")
    monkeypatch.setattr(opened.mmap, "mmap", refuse)
    assert np.array_equal(rows(str(file), 4, SHAPE, np.array([7])), ARRAY[[7]])


@pytest.mark.usefixtures("_process")
@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_what_is_no_file_with_content_is_named(tmp_path, make):
    make(tmp_path / "b")
    with pytest.raises(DataError, match=f"{tmp_path}/b"):
        rows(str(tmp_path / "b"), 0, (1, 1), np.array([0]))
    with pytest.raises(DataError, match=f"{tmp_path}/b"):
        descriptor(str(tmp_path / "b"))


class CutWhileRead(Dataset):
    """Samples of a file that loses its content after it was looked at and before it is copied."""

    def __init__(self, file):
        self.file = str(file)

    def __getitem__(self, pair):
        found = opened._version(self.file)
        opened._mapped(self.file, *found)
        os.truncate(self.file, 0)
        opened._version = lambda path: found
        return {"index": pair[0], "rows": rows(self.file, 4, SHAPE, np.arange(40))}


@pytest.mark.row(46)
def test_a_worker_whose_file_is_cut_under_its_map_is_reported_and_the_run_lives(file):
    batches = EndlessBatches(10, 2, seed=0)
    workers = {"num_workers": 1, "multiprocessing_context": "fork", "timeout": 60}
    with pytest.raises(DataError, match=r"ended \(killed by SIGBUS\) while reading samples .* \(positions 0 to"):
        next(iter(Loader(CutWhileRead(file), batch_sampler=batches, **workers)))
