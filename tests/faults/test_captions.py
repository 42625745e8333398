"""Rows 26 to 31: captions of every kind reach training as they are, or are named by file and line."""

import json
import logging
import unicodedata

import pytest
import torch
import yaml

from eval.prompts import Prompt, checked
from lightning_mav.__main__ import main
from lightning_mav.data.images import open_images
from lightning_mav.errors import DataError
from lightning_mav.networks.encoders import tokenize
from lightning_mav.results import numbered
from tests.faults.tiers import tiered

NETWORK = {
    "embedding_dim": 8,
    "image_size": 8,
    "image_channels": [8],
    "text_width": 8,
    "text_layers": 1,
    "text_heads": 1,
}
CONFIG = {
    "model": {"class_path": "lightning_mav.stages.ClipStage", "init_args": {"config": {"network": NETWORK}}},
    "data": {
        "class_path": "lightning_mav.stages.ClipDataModule",
        "init_args": {"size": 8, "min_size": 4, "batch_size": 4},
    },
    "trainer": {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False, "enable_model_summary": False},
}


@pytest.fixture
def fit_captions(image_folder, tmp_path):
    """Return a function that gives the words of a ``fit`` on the images with these captions, one on each line."""

    def words(*captions):
        names = sorted(path.name for path in image_folder.glob("*.jp*g"))
        rows = [{"path": str(image_folder / names[i % 4]), "caption": text} for i, text in enumerate(captions)]
        (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "clip.yaml").write_text(yaml.safe_dump(CONFIG))
        source = ["--data.source", str(tmp_path / "list.jsonl")]
        return ["fit", "--config", str(tmp_path / "clip.yaml"), "--run", str(tmp_path / "run"), *source]

    return words


@pytest.mark.row(26, 28)
def test_empty_and_over_long_captions_are_counted_and_train(fit_captions, caplog):
    with caplog.at_level(logging.WARNING):
        assert main(fit_captions("a ring", "", "a cross", "  ", "round " * 100, "square " * 100, "a dot", "")) == 0
    told = [record.getMessage() for record in caplog.records]
    assert any(
        "list.jsonl, line 2, 4, 8: empty caption (3 in all); it trains as the null text" in line for line in told
    )
    cut = [line for line in told if line.startswith("caption cut to 77 tokens")]
    assert cut and len(cut) == len(set(cut)) <= 2 and all("captions so far): " in line for line in cut)


WRONG = {
    "None": None,
    "number": 3,
    "not a number": float("nan"),
    "list": ["a"],
    "NUL": "a\0b",
    "half a letter": "\ud83d",
}


@pytest.mark.row(27, 29)
@pytest.mark.parametrize("kind", tiered(WRONG, "half a letter"))
def test_a_caption_that_is_no_text_is_named_by_its_line(fit_captions, refused, kind):
    refused(fit_captions("a", "b", WRONG[kind], "c"), 3, "list.jsonl, line 3", "caption")


SCRIPTS = [
    "ein roter Ring",
    "赤い輪",
    "حلقة حمراء",
    "🙂🙃",
    "нара",
    "café",
    unicodedata.normalize("NFD", "café"),
    "a\tb\u202e",
]


@pytest.mark.row(29)
def test_every_script_trains_and_composition_makes_no_difference(fit_captions, tmp_path):
    words = fit_captions(*SCRIPTS)
    source = open_images(str(tmp_path / "list.jsonl"), "train", 8)
    assert {source.caption(i) for i in range(len(source))} < set(SCRIPTS)
    assert main(words) == 0
    for text in ("café", "Å", "한국어"):
        composed, parted = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert composed != parted and torch.equal(tokenize([composed]), tokenize([parted]))
        assert numbered(tmp_path, [composed], ".mp4") == numbered(tmp_path, [parted], ".mp4")


@pytest.mark.row(29)
@pytest.mark.parametrize("text", ["a\0b", "half \ud83d"])
def test_a_prompt_that_is_no_text_is_refused_by_its_number(pipeline_folder, refused, tmp_path, text):
    words = ["generate", "--model", pipeline_folder, "--out", tmp_path / "a.mp4", "--until", "decoder"]
    refused([*words, "--prompt", text], 2, "prompt 1 holds")
    with pytest.raises(DataError, match=r"2 captions hold what is no text \(b, c\)"):
        checked([Prompt("a", "good", "g"), Prompt("b", text, "g"), Prompt("c", text, "g")], "list")


@pytest.mark.row(30)
def test_ids_that_stand_twice_and_empty_prompts_are_counted_and_five_are_named():
    prompts = [Prompt(f"video{i}", "a text", "g") for i in range(9)]
    with pytest.raises(DataError, match=r"list: 9 ids stand more than once \(video0, .*video4, \.\.\.\)"):
        checked([*prompts, *prompts], "list")
    with pytest.raises(DataError, match=r"list: 9 empty captions \(video0, .*video4, \.\.\.\)"):
        checked([Prompt(prompt.id, " ", "g") for prompt in prompts], "list")


@pytest.mark.row(30)
@pytest.mark.full
def test_captions_without_a_file_are_counted_and_named(image_folder, capsys, tmp_path):
    rows = ["path,caption", f"{image_folder}/a.jpg,here", *(f"none{i}.jpg,lost" for i in range(3))]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert main(["data", "check", "--source", str(tmp_path / "list.csv"), "--num_workers", "1"]) == 3
    shown = capsys.readouterr()
    assert "3 of 4 samples are bad" in shown.err and all(f"none{i}.jpg: No such file" in shown.out for i in range(3))


@pytest.mark.row(31)
def test_no_sample_is_an_error_that_names_the_list(fit_captions, refused):
    refused(fit_captions(), 3, "list.jsonl: empty file")


@pytest.mark.row(31)
@pytest.mark.parametrize("num", tiered([1, 3], 3))
def test_fewer_samples_than_a_batch_train_again_and_again(fit_captions, num):
    assert main([*fit_captions(*["a ring", "a cross", "a dot"][:num]), "--data.batch_size", "8"]) == 0
