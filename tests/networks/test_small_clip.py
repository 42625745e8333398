import torch

from lightning_mav.networks.encoders import tokenize
from lightning_mav.networks.small_clip import SmallClip, SmallClipConfig, text_mask

CONFIG = SmallClipConfig(embedding_dim=8, image_channels=(8, 16), text_width=16, text_heads=2)


def test_image_tower_takes_any_size():
    clip = SmallClip(CONFIG)
    for height, width in ((16, 16), (32, 32), (50, 70)):
        assert clip.image(torch.rand(2, 3, height, width)).shape == (2, 8)


def test_the_same_picture_at_another_resolution_is_nearly_the_same():
    torch.manual_seed(0)
    clip = SmallClip(CONFIG).eval()
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:48, 16:48] = 1
    small = image[..., ::4, ::4]
    with torch.no_grad():
        cosine = torch.cosine_similarity(clip.image(image), clip.image(small))
    assert cosine > 0.99


def test_text_does_not_depend_on_its_neighbours_in_the_batch():
    clip = SmallClip(CONFIG).eval()
    long = "a very long caption about a purple cross, a red ring and a green square on a white background"
    with torch.no_grad():
        alone = clip.text(tokenize(["a red ring"]))
        beside = clip.text(tokenize(["a red ring", long]))
    assert torch.allclose(alone[0], beside[0][:1], atol=1e-6)
    assert torch.allclose(alone[1], beside[1][:1], atol=1e-6)


def test_states_have_full_length_and_no_padding_content():
    tokens = tokenize(["a red ring", ""])
    embedding, states = SmallClip(CONFIG).text(tokens)
    assert embedding.shape == (2, 8)
    assert states.shape == (2, 77, 16)
    assert text_mask(tokens).sum(1).tolist() == [5, 2]
    assert not states[~text_mask(tokens)].any()


def test_word_order_counts():
    clip = SmallClip(CONFIG).eval()
    with torch.no_grad():
        embeddings = clip.text(tokenize(["red on white", "white on red"]))[0]
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-4
