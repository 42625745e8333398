import torch
from torch.nn import functional as F

from lightning_mav.models.clip import Clip, ClipConfig, contrastive_loss
from lightning_mav.networks.encoders import tokenize
from lightning_mav.networks.small_clip import SmallClipConfig


def test_loss_of_distinct_captions_is_clips_own():
    logits, tokens = torch.randn(4, 4), tokenize(["a", "b", "c", "d"])
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    assert torch.allclose(contrastive_loss(logits, tokens)["loss"].mean(), expected)


def test_equal_captions_are_no_mistakes():
    """Two images of one caption: swapping them costs nothing, taking the third one does."""
    tokens = tokenize(["a ring", "a ring", "a cross"])
    right = 10 * torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    one_preferred = 10 * torch.tensor([[2.0, 1, 0], [1, 2, 0], [0, 0, 2]])
    best = contrastive_loss(right, tokens)["loss"]
    assert torch.allclose(best, torch.tensor([2.0, 2, 1]).log(), atol=1e-3)
    assert contrastive_loss(one_preferred, tokens)["loss"].mean() > best.mean()


def test_learns_a_few_pairs_and_reaches_every_used_weight():
    torch.manual_seed(0)
    clip = Clip(ClipConfig(SmallClipConfig(16, 16, image_channels=(8, 16), text_width=16, text_heads=2)))
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]])
    batch = {
        "image": colours[:, :, None, None].expand(-1, -1, 16, 16),
        "tokens": tokenize(["red", "green", "blue", "yellow"]),
    }
    optimizer = torch.optim.Adam(clip.parameters(), lr=1e-2)
    first = clip.loss(batch)["loss"]
    assert first.shape == (4,)
    for _ in range(30):
        optimizer.zero_grad()
        loss = clip.loss(batch)["loss"].mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * first.mean()
    assert all(parameter.grad is not None for parameter in clip.parameters())


def test_temperature_is_bounded():
    clip = Clip(ClipConfig(SmallClipConfig(8, 16, (8,), 16, 1, 2), max_logit_scale=1.0))
    clip.network.logit_scale.data.fill_(20.0)
    batch = {"image": torch.randn(3, 3, 16, 16), "tokens": tokenize(["a", "b", "c"])}
    assert clip.loss(batch)["loss"].max() < 4  # cosines alone: at most log 3 + 2
