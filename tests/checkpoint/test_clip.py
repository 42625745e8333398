import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from lightning_mav.checkpoint.clip import load_clip
from lightning_mav.checkpoint.models import save_model
from lightning_mav.errors import CheckpointError, ConfigError
from lightning_mav.models.clip import Clip, ClipConfig
from lightning_mav.networks.small_clip import SmallClipConfig

TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny_open_clip(monkeypatch):
    """Let open_clip know a tiny model, without and with QuickGELU."""
    configs = open_clip.factory._MODEL_CONFIGS
    monkeypatch.setitem(configs, "tiny", TINY)
    monkeypatch.setitem(configs, "tiny-quickgelu", TINY | {"quick_gelu": True})


def save_open_clip(path):
    model = open_clip.create_model("tiny", pretrained=None)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model


def test_our_own_clip_comes_back(tmp_path):
    network = SmallClipConfig(8, image_channels=(8, 16), text_width=16, text_heads=2)
    clip = Clip(ClipConfig(network))
    save_model(clip, tmp_path)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = clip.network.eval().image(image)
    assert torch.allclose(load_clip(str(tmp_path)).encode_image(image), expected, atol=1e-6)


def test_open_clip_weights_are_the_ones_in_the_file(tmp_path, tiny_open_clip):
    model = save_open_clip(tmp_path / "weights.safetensors")
    encoder = load_clip(f"open_clip:tiny:{tmp_path}/weights.safetensors")
    assert torch.equal(encoder.network.text_projection, model.text_projection)


def test_quick_gelu_weights_in_a_model_without_it_are_refused(tmp_path, tiny_open_clip):
    file = tmp_path / "vit.openai.safetensors"
    save_open_clip(file)
    with pytest.raises(CheckpointError, match="open_clip:tiny-quickgelu:"):
        load_clip(f"open_clip:tiny:{file}")
    assert load_clip(f"open_clip:tiny-quickgelu:{file}").embedding_dim == 12


def test_transformers_folder_loads_and_an_incomplete_one_is_refused(tmp_path):
    text = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = text | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    model.save_pretrained(tmp_path)
    assert torch.equal(load_clip(f"transformers:{tmp_path}").network.logit_scale, model.logit_scale)
    state = {key: value for key, value in model.state_dict().items() if key != "text_projection.weight"}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"text_projection\.weight"):
        load_clip(f"transformers:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("runs/nothing", CheckpointError, "runs/nothing"),
        ("open_clip:ViT-L-14", ConfigError, "MODEL:WEIGHTS_FILE"),
        ("open_clip:ViT-Nothing:x.pt", ConfigError, "ViT-Nothing"),
        ("open_clip:ViT-L-14:missing.safetensors", CheckpointError, r"missing\.safetensors"),
        ("open_clip:ViT-B-16-SigLIP:x.safetensors", ConfigError, "tokenizer"),
        ("transformers:missing", CheckpointError, "missing"),
    ],
)
def test_a_wrong_spec_says_what_to_do(spec, error, words):
    with pytest.raises(error, match=words):
        load_clip(spec)


def test_damaged_weights_are_named(tmp_path, tiny_open_clip):
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_clip(f"open_clip:tiny:{tmp_path}/w.safetensors")
