import csv
import json

import pytest

from eval.msrvtt import CSV_COLUMNS, ascii_only, distinct, one_per_video, read_captions
from eval.prompts import list_hash
from lightning_mav.errors import DataError

CAPTIONS = {"video12": {"7": "a dog runs", "3": "a dog is running"}, "video9": {"1": "a café at night", "2": "a cat"}}
SENTENCES = [
    {"video_id": video, "sen_id": int(number), "caption": text}
    for video, captions in CAPTIONS.items()
    for number, text in captions.items()
]
IDS = ["video9#1", "video9#2", "video12#3", "video12#7"]


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def official(split):
    return [{"video_id": video, "split": split} for video in CAPTIONS]


def test_the_three_json_shapes_give_the_same_captions_in_order_of_their_numbers(tmp_path):
    unwanted = {"video_id": "video1", "sen_id": 99, "caption": "of another split"}
    every_split = {"videos": [*official("test"), {"video_id": "video1", "split": "train"}]}
    files = [
        written(tmp_path / "test.json", CAPTIONS),
        written(tmp_path / "official.json", {"videos": official("test"), "sentences": SENTENCES}),
        written(tmp_path / "data.json", every_split | {"sentences": [unwanted, *SENTENCES]}),
    ]
    first, *others = [read_captions(file) for file in files]
    assert [prompt.id for prompt in first] == IDS
    assert [prompt.group for prompt in first] == ["video9", "video9", "video12", "video12"]
    assert others == [first, first]
    assert [prompt.text for prompt in read_captions(files[2], "train")] == ["of another split"]


def test_the_csv_gives_one_caption_a_video(tmp_path):
    path = tmp_path / "test.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [CSV_COLUMNS, ("ret0", "msr12", "video12", "a dog, running"), ("ret1", "msr9", "video9", "cat")]
        )
    assert [(p.group, p.text) for p in read_captions(path)] == [("video9", "cat"), ("video12", "a dog, running")]


def test_selections(tmp_path):
    prompts = read_captions(written(tmp_path / "a.json", CAPTIONS))
    assert [prompt.id for prompt in ascii_only(prompts)] == IDS[1:]
    drawn = {seed: tuple(prompt.id for prompt in one_per_video(prompts, seed)) for seed in range(40)}
    assert one_per_video(prompts, 3) == one_per_video(prompts, 3)
    assert len(set(drawn.values())) == 4 and all(len(ids) == 2 for ids in drawn.values())
    twice = read_captions(
        written(tmp_path / "b.json", {"video1": {"1": "a", "2": "b", "3": "a"}, "video2": {"4": "a"}})
    )
    assert [prompt.id for prompt in distinct(twice)] == ["video1#1", "video1#2", "video2#4"]


def test_the_hash_names_the_list(tmp_path):
    prompts = read_captions(written(tmp_path / "a.json", CAPTIONS))
    assert list_hash(prompts) == list_hash(list(prompts)) and len(list_hash(prompts)) == 64
    assert list_hash(prompts) != list_hash(prompts[::-1]) != list_hash(prompts[1:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is no MSR-VTT annotation"),
        ([1, 2], "is no MSR-VTT annotation"),
        ({"sentences": [{"video_id": "video1"}], "videos": [{"video_id": "video1"}]}, "is no MSR-VTT annotation"),
        ({"video1": {"1": " "}}, r"1 empty captions \(video1#1\)"),
        ({"videos": [], "sentences": []}, "holds no caption"),
        (
            {"videos": official("test"), "sentences": [*SENTENCES, SENTENCES[0]]},
            r"1 ids stand more than once \(video12#7\)",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = written(tmp_path / "wrong.json", content)
    with pytest.raises(DataError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing.json: cannot be read"):
        read_captions(tmp_path / "nothing.json")


def test_the_real_test_split_has_the_counts_that_papers_print(shared_data):
    prompts = read_captions(shared_data / "msrvtt" / "test_captions.json")
    assert len(prompts) == 59_800
    assert len(ascii_only(prompts)) == 59_794
    assert len(one_per_video(prompts, seed=0)) == 2_990
    assert len(distinct(prompts)) == 55_548
    assert prompts[0].group == "video7010" and prompts[-1].group == "video9999"
