import pytest
import torch

from lightning_mav.data.scenes import CAPTIONS, HELD_OUT
from lightning_mav.errors import DataError
from lightning_mav.stages.clip import ClipDataModule, retrieval


def test_training_images_lose_detail_as_a_function_of_their_key():
    sharp = ClipDataModule(size=32, min_size=32).dataset("train")
    blurred = ClipDataModule(size=32, min_size=8).dataset("train")
    assert torch.equal(blurred[3, 40]["image"], blurred[3, 40]["image"])
    assert not torch.equal(blurred[3, 40]["image"], blurred[3, 41]["image"])
    assert torch.equal(sharp[3, 40]["image"], sharp[3, 41]["image"])
    assert blurred[3, 40]["image"].shape == (3, 32, 32)


def test_held_out_images_are_sharp_and_never_trained_on():
    data = ClipDataModule(size=32)
    val = data.dataset("val")
    assert {val.caption(i) for i in range(64)} == set(HELD_OUT)
    assert not {data.dataset("train").caption(i) for i in range(200)} & set(HELD_OUT)
    assert torch.equal(val[0, 0]["image"], val[0, 1]["image"])


def test_a_test_compares_with_all_captions():
    data = ClipDataModule(size=16)
    data.setup("test")
    assert set(data.captions) == set(CAPTIONS)


def test_an_image_without_caption_is_named(image_folder, tmp_path):
    (tmp_path / "a.jpg").write_bytes((image_folder / "a.jpg").read_bytes())
    (tmp_path / "b.jpg").write_bytes((image_folder / "a.jpg").read_bytes())
    with pytest.raises(DataError, match=r"a\.jpg: no caption"):
        ClipDataModule(source="unused", val_source=str(tmp_path), size=16).dataset("val")[0, 0]


def test_retrieval_counts_nearest_entries():
    gallery = torch.eye(3)
    found = retrieval(torch.tensor([[2.0, 0, 0], [0, 1, 5]]), gallery, torch.tensor([0, 1]))
    assert found["retrieval"] == 0.5
