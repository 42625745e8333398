import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.errors import DataError
from lightning_mav.metrics.clip_similarity import clip_similarity, frame_similarity, similarity_of_videos
from lightning_mav.networks.encoders import tokenize


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


TEXTS = ["a dog", "two cats on a red sofa"]
VIDEOS = torch.randint(0, 256, (2, 3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def by_hand(images, texts):
    """Return the mean cosine of 2 videos of 3 frames and their texts."""
    images, texts = (torch.nn.functional.normalize(x.detach().double(), dim=-1) for x in (images, texts))
    return (images.view(2, 3, -1) * texts[:, None]).sum(-1).mean(1)


def normalised_frames():
    frames = VIDEOS.transpose(1, 2).flatten(0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return (frames - mean) / std


def test_with_a_transformers_clip(tmp_path):
    torch.manual_seed(0)
    text = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = CLIPConfig(text_config=text, vision_config=text | {"image_size": 32, "patch_size": 8}, projection_dim=12)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    images = model.visual_projection(model.vision_model(normalised_frames()).pooler_output)
    ids = tokenize(TEXTS)
    states = model.text_model(ids).last_hidden_state
    texts = model.text_projection(states[torch.arange(2), ids.argmax(1)])
    found = similarity_of_videos(load_clip(f"transformers:{tmp_path}"), VIDEOS, TEXTS)
    assert torch.allclose(found, by_hand(images, texts), atol=1e-5)


def test_with_an_open_clip_model(tmp_path, monkeypatch):
    tiny = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", tiny)
    torch.manual_seed(0)
    model = open_clip.create_model("tiny", pretrained=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    found = similarity_of_videos(load_clip(f"open_clip:tiny:{tmp_path}/weights.pt"), VIDEOS, TEXTS)
    expected = by_hand(model.encode_image(normalised_frames()), model.encode_text(tokenize(TEXTS)))
    assert torch.allclose(found, expected, atol=1e-5)
