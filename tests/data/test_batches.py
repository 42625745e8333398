"""Samples become batches as torch makes them; what does not fit is named by its sample."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lightning_mav.data.batches import check_frames, collate
from lightning_mav.errors import DataError


def sample(index, **contents):
    return {"video": torch.full((3, 2, 4, 4), index / 10), "index": index, "position": 10 + index} | contents


def test_samples_that_are_alike_are_stacked_as_torch_does():
    samples = [sample(i, caption=f"text {i}", fps=torch.tensor(8.0), array=np.zeros((2, 3))) for i in range(3)]
    found, wanted = collate(samples), default_collate(samples)
    assert list(found) == list(wanted) and found["caption"] == wanted["caption"]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted if name != "caption")


def test_what_some_samples_lack_is_left_out():
    assert set(collate([sample(0, caption="text"), sample(1)])) == {"video", "index", "position"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            sample(7, video=torch.zeros(3, 3, 4, 4)),
            r"video of sample 7 is float32 \(3, 3, 4, 4\), but that of sample 0",
        ),
        (sample(7, video=torch.zeros(3, 2, 4, 4).double()), r"video of sample 7 is float64"),
        (sample(7, video="frames"), r"video of sample 7 is str"),
        ([1, 2], r"a sample is list; give a dictionary with index, position"),
        ({"video": 1}, r"a sample is dict; give a dictionary with index, position"),
    ],
)
def test_samples_that_differ_are_named(other, said):
    with pytest.raises(DataError, match=said):
        collate([sample(0), other])


@pytest.mark.parametrize(
    ("video", "said"),
    [
        (torch.zeros(2, 3, 5, 4, 4), None),
        (torch.ones(2, 3, 1, 4, 4, dtype=torch.bfloat16), None),
        (torch.zeros(2, 3, 4, 4), r"expected float \(B, 3, F, 4, 4\), got float32 \(2, 3, 4, 4\)"),
        (torch.zeros(2, 4, 5, 4, 4), "expected float"),
        (torch.zeros(2, 3, 5, 4, 8), "expected float"),
        (torch.zeros(2, 3, 5, 4, 4, dtype=torch.uint8), ".*got uint8"),
        (torch.full((2, 3, 5, 4, 4), 1.1), r"expected values in \[-1, 1\], got 1\.1 to 1\.1"),
        (torch.full((2, 3, 5, 4, 4), torch.nan), r"expected values in \[-1, 1\], got nan"),
    ],
)
def test_frames_are_of_the_size_and_range_that_stages_take(video, said):
    batch = {"video": video, "index": torch.tensor([4, 5])}
    if said is None:
        check_frames(batch, {(4, 4)})
    else:
        with pytest.raises(DataError, match=f"data: video of sample 4: {said}"):
            check_frames(batch, {(4, 4)})


def test_images_are_checked_too_and_embeddings_pass():
    check_frames({"image": torch.zeros(2, 3, 4, 4), "index": torch.tensor([0, 1])}, {(4, 4)})
    check_frames({"image_embedding": torch.zeros(2, 8), "index": torch.tensor([0, 1])}, {(4, 4)})
    with pytest.raises(DataError, match=r"image of sample 0: expected float \(B, 3, 4, 4\)"):
        check_frames({"image": torch.zeros(2, 3, 8, 8), "index": torch.tensor([0, 1])}, {(4, 4)})
    with pytest.raises(DataError, match="holds index, sound, but neither video nor image"):
        check_frames({"sound": torch.zeros(2, 8), "index": torch.tensor([0, 1])}, {(4, 4)})
