"""Bad samples cost themselves and nothing else: which sample is read instead is a function of the key alone."""

import json
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from lightning_mav.data.images import ImageDataset, open_images
from lightning_mav.data.order import EndlessBatches
from lightning_mav.data.skipping import BadSamples, SkippingDataset
from lightning_mav.errors import DataError

NUM, BAD = 40, ("03.png", "17.png", "31.png")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Forty images, of which three are cut in half."""
    folder = tmp_path_factory.mktemp("damaged")
    for i in range(NUM):
        Image.new("RGB", (8, 8), (6 * i, 0, 0)).save(folder / f"{i:02d}.png")
    for name in BAD:
        (folder / name).write_bytes((folder / name).read_bytes()[:40])
    return folder


def skipping(folder, listed, budget=3, dataset=None):
    dataset = dataset or ImageDataset(open_images(str(folder), "train", 8), 8, 0)
    return SkippingDataset(dataset, len(dataset), 0, BadSamples(Path(listed), "train"), budget)


def read(dataset, keys):
    return [
        (sample["index"], sample["position"], float(sample["image"][0, 0, 0]))
        for sample in map(dataset.__getitem__, keys)
    ]


def rows(listed):
    return [json.loads(line) for line in Path(listed).read_text().splitlines()]


def bad_indices(folder):
    return {i for i, entry in enumerate(open_images(str(folder), "train", 8).entries) if entry.name in BAD}


def test_a_bad_sample_is_listed_once_and_replaced(damaged, tmp_path):
    dataset, bad = skipping(damaged, tmp_path / "list"), bad_indices(damaged)
    keys = list(chain.from_iterable(islice(iter(EndlessBatches(len(dataset), 4, 0)), 30)))
    found = read(dataset, keys)
    assert [position for _, position, _ in found] == list(range(120))
    assert all(
        (index == key[0]) == (key[0] not in bad) and index not in bad
        for (index, _, _), key in zip(found, keys, strict=True)
    )
    listed = rows(tmp_path / "list")
    assert {row["index"] for row in listed} == bad and len(listed) == len(bad)
    assert {Path(row["name"]).name for row in listed} <= set(BAD)
    assert all(
        "cannot be read" in row["reason"] and keys[row["position"]] == (row["index"], row["position"]) for row in listed
    )


def test_replacements_vary_with_the_position_and_depend_on_nothing_that_was_read_before(damaged, tmp_path):
    bad = min(bad_indices(damaged))
    keys = [(bad, position) for position in range(50)]
    forwards = read(skipping(damaged, tmp_path / "a"), keys)
    assert read(skipping(damaged, tmp_path / "b"), keys[::-1])[::-1] == forwards
    assert len({index for index, _, _ in forwards}) > 20


def test_workers_list_and_replace_what_one_process_does(damaged, tmp_path):
    order = EndlessBatches(NUM - 1, 5, 0)
    one = read(skipping(damaged, tmp_path / "one"), chain.from_iterable(islice(iter(order), 8)))
    loader = DataLoader(
        skipping(damaged, tmp_path / "two"),
        batch_sampler=order,
        num_workers=2,
        multiprocessing_context=get_context("fork"),
    )
    batches = list(islice(iter(loader), 8))
    assert [int(index) for batch in batches for index in batch["index"]] == [index for index, _, _ in one]
    assert {row["index"] for row in rows(tmp_path / "two")} == {row["index"] for row in rows(tmp_path / "one")}


def test_more_than_the_budget_is_an_error_that_says_where_they_are_listed(damaged, tmp_path):
    keys = [(index, 0) for index in sorted(bad_indices(damaged))]
    dataset = skipping(damaged, tmp_path / "list", budget=len(keys) - 1)
    read(dataset, keys[:-1] * 3)
    for _ in range(2):  # also when the run is started again
        with pytest.raises(
            DataError, match=rf"list: {len(keys)} of {len(dataset)} train samples are bad, and data.skip_budget is"
        ) as failure:
            read(skipping(damaged, tmp_path / "list", budget=len(keys) - 1), keys[-1:])
        assert "mend or remove them or raise it; the last is" in str(failure.value)
    assert len(rows(tmp_path / "list")) == len(keys)
    read(skipping(damaged, tmp_path / "list", budget=len(keys)), keys)


class AllBad:
    def __len__(self):
        return 3

    def __getitem__(self, key):
        raise DataError(f"{key[0]}.jpg: damaged")


def test_where_all_are_bad_there_is_an_end(tmp_path):
    with pytest.raises(DataError, match=r"3 of 3 train samples are bad"):
        skipping(None, tmp_path / "list", budget=100, dataset=AllBad())[0, 0]


def test_splits_are_counted_apart_and_a_cut_line_is_no_obstacle(tmp_path):
    train, val = (BadSamples(tmp_path / "list", split) for split in ("train", "val"))
    error = DataError("a.jpg: damaged")
    assert (train.add(3, 9, error), val.add(3, 3, error), train.add(4, 10, error), train.add(3, 50, error)) == (
        1,
        1,
        2,
        2,
    )
    with (tmp_path / "list").open("ab") as file:
        file.write(b'{"split": "tr')
    assert train.add(5, 11, error) == 3  # its line is spoilt by the one before
    assert train.add(6, 12, error) == 3 and train.add(5, 13, error) == 4
