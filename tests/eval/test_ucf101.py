from pathlib import Path

import pytest

from eval.prompts import list_hash
from eval.ucf101 import (
    class_counts,
    class_names,
    class_of,
    class_texts,
    prompts,
    proportional,
    read_classes,
    read_split,
    readable,
)
from lightning_mav.errors import ConfigError, DataError

HASHES = {  # a list that changes is another list
    "class_names": "b1576bca42bb",
    "pyoco": "9e2931ad28e9",
    "sentences_v1": "47cd35b665cc",
}


def test_every_list_has_one_distinct_text_for_each_of_the_101_classes():
    assert len(set(class_names())) == 101
    for name in HASHES:
        texts = class_texts(name)
        assert list(texts) == class_names() and len(set(texts.values())) == 101


@pytest.mark.parametrize("name", HASHES)
def test_lists_never_change(name):
    assert list_hash(prompts(name, dict.fromkeys(class_names(), 1)))[:12] == HASHES[name]


def test_class_names_become_words():
    assert readable("ApplyEyeMakeup") == "apply eye makeup"
    assert readable("YoYo") == "yo yo"


def test_prompts_have_ids_of_their_own_and_the_class_as_group():
    counts = dict.fromkeys(class_names(), 0) | {"Archery": 2, "YoYo": 1}
    found = prompts("pyoco", counts)
    assert [(p.id, p.text, p.group) for p in found] == [
        ("Archery#0", "archery", "Archery"),
        ("Archery#1", "archery", "Archery"),
        ("YoYo#0", "a kid playing Yo-Yo", "YoYo"),
    ]
    with pytest.raises(ConfigError, match="'mine' is none of class_names, pyoco, sentences_v1"):
        prompts("mine", counts)


def test_the_class_with_two_spellings_is_one_class():
    assert class_of("HandstandPushups/v_HandStandPushups_g01_c01.avi") == "HandstandPushups"
    assert class_of("v_Archery_g07_c02.mp4") == "Archery"
    for wrong in ("v_Archery.avi", "v_Sleeping_g01_c01.avi", "archery.avi"):
        with pytest.raises(DataError, match="is no clip of UCF-101"):
            class_of(wrong)


@pytest.mark.parametrize("num", [1, 100, 101, 2_048, 10_000, 9_537])
def test_proportional_shares_add_up_and_are_within_one_of_their_proportion(num):
    counts = {name: 72 + i % 50 for i, name in enumerate(class_names())}
    shares, total = proportional(counts, num), sum(counts.values())
    assert sum(shares.values()) == num
    assert all(abs(shares[name] - counts[name] * num / total) < 1 for name in counts)
    assert proportional(counts, total) == counts


def test_lists_are_read_without_their_class_numbers_and_sorted(tmp_path):
    path = tmp_path / "trainlist01.txt"
    path.write_text("YoYo/v_YoYo_g08_c01.avi 101\nArchery/v_Archery_g08_c01.avi 3\n\n")
    assert read_split(path) == ["Archery/v_Archery_g08_c01.avi", "YoYo/v_YoYo_g08_c01.avi"]
    assert class_counts(read_split(path))["YoYo"] == 1


def test_wrong_files_are_named(tmp_path):
    path = tmp_path / "classInd.txt"
    path.write_text("1 Archery\n2 YoYo\n")
    with pytest.raises(DataError, match=r"classInd.txt: is not the list of UCF-101's 101 classes"):
        read_classes(path)
    with pytest.raises(DataError, match=r"nothing.txt: cannot be read"):
        read_split(Path(tmp_path / "nothing.txt"))


def test_the_real_lists_hold_13320_clips_of_101_classes(shared_data):
    folder = shared_data / "ucf101"
    assert read_classes(folder / "classInd.txt") == class_names()
    sizes = []
    for i in (1, 2, 3):
        train, test = (read_split(folder / f"{part}list0{i}.txt") for part in ("train", "test"))
        assert len(set(train) | set(test)) == 13_320 and set(class_counts(train + test)) == set(class_names())
        sizes.append((len(train), len(test)))
    assert sizes == [(9_537, 3_783), (9_586, 3_734), (9_624, 3_696)]
    counts = class_counts(read_split(folder / "trainlist01.txt"))
    assert (min(counts.values()), max(counts.values())) == (72, 121)
