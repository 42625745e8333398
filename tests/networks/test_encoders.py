import logging

import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from lightning_mav.networks.encoders import (
    FrozenClip,
    OpenClipEncoder,
    Preprocessing,
    SmallClipEncoder,
    TransformersEncoder,
    tokenize,
)
from lightning_mav.networks.small_clip import SmallClip, SmallClipConfig

TEXTS = ["a purple cross on a white background", ""]


def open_clip_encoder():
    text = {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    network = open_clip.CLIP(12, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))
    usual = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    open_clip.set_model_preprocess_cfg(network, {"size": (32, 32)} | usual)
    return OpenClipEncoder(network)


def transformers_encoder():
    text = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    text |= {"bos_token_id": 49406, "eos_token_id": 49407}
    vision = text | {"hidden_size": 32, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    return TransformersEncoder(CLIPModel(config), Preprocessing(32))


def small_encoder():
    return SmallClipEncoder(SmallClip(SmallClipConfig(12, image_channels=(8, 16), text_width=24, text_heads=2)))


@pytest.fixture(scope="module", params=[open_clip_encoder, transformers_encoder, small_encoder])
def encoder(request):
    torch.manual_seed(0)
    return request.param()


def test_shapes_are_those_of_the_protocol(encoder):
    text = encoder.encode_text(TEXTS)
    assert (encoder.embedding_dim, encoder.states_dim) == (12, 24)
    assert text.embedding.shape == (2, 12)
    assert text.states.shape == (2, 77, 24)
    assert text.mask.sum(1).tolist() == [9, 2]
    assert encoder.encode_image(torch.rand(3, 3, 48, 48) * 2 - 1).shape == (3, 12)


def test_states_before_the_end_do_not_see_what_follows(encoder):
    one, other = encoder.encode_text(["a red ring", "a red square"]).states
    assert torch.allclose(one[:3], other[:3], atol=1e-6)
    assert not torch.allclose(one[3], other[3], atol=1e-4)


def test_nothing_can_be_trained_and_nothing_is_a_module(encoder):
    assert isinstance(encoder, FrozenClip) and not isinstance(encoder, torch.nn.Module)
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    assert not encoder.encode_image(torch.zeros(1, 3, 32, 32, requires_grad=True)).requires_grad


def test_fingerprint_follows_the_weights(encoder):
    before = encoder.fingerprint
    assert type(encoder).fingerprint.func(encoder) == before
    parameter = next(encoder.network.parameters())
    parameter.add_(1)
    assert type(encoder).fingerprint.func(encoder) != before
    parameter.sub_(1)


def test_open_clip_matches_its_own_encoders():
    encoder = open_clip_encoder()
    tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    assert torch.allclose(encoder.encode_text(TEXTS).embedding, encoder.network.encode_text(tokens), atol=1e-6)


def test_transformers_matches_its_own_features():
    encoder = transformers_encoder()
    features = encoder.network.get_text_features(input_ids=tokenize(TEXTS))
    assert torch.allclose(encoder.encode_text(TEXTS).embedding, features.pooler_output, atol=1e-6)


def test_preprocessing_normalises_as_clip_was_trained():
    white = Preprocessing(4)(torch.ones(1, 3, 8, 8))
    expected = [(1 - mean) / std for mean, std in zip(Preprocessing(4).mean, Preprocessing(4).std, strict=True)]
    assert torch.allclose(white[0].mean((1, 2)), torch.tensor(expected))


@pytest.mark.row(28)
def test_a_caption_that_is_cut_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        tokenize(["a " * 75])
        assert not caplog.records
        tokens = tokenize(["a " * 80 + "cat"])
    assert "caption cut" in caplog.text
    assert tokens.shape == (1, 77)


def test_any_text_has_tokens():
    assert tokenize(["", "снег", "🐈 on a mat", "<b>x</b>"]).shape == (4, 77)
