import pytest
import torch

from lightning_mav.errors import DataError
from lightning_mav.metrics.clip_similarity import clip_similarity, frame_similarity


def test_the_cosine_is_averaged_over_frames_and_not_clamped():
    text = torch.tensor([[2.0, 0], [0, 3]])
    frames = torch.tensor([[[1.0, 0], [0, 5]], [[0, -1], [0, -2]]])
    assert frame_similarity(frames, text).tolist() == [0.5, -1.0]


def test_no_prompt_counts_twice():
    similarities = torch.tensor([0.1, 0.3, 0.6])
    assert clip_similarity(similarities, ["a", "a", "b"]) == pytest.approx((0.2 + 0.6) / 2)


def test_a_video_without_prompt_is_refused():
    for prompts in ([], ["a"]):
        with pytest.raises(DataError, match="each video needs its own"):
            clip_similarity(torch.tensor([0.1, 0.3]), prompts)
