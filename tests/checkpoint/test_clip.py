import hashlib

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


def test_weights_without_quick_gelu_in_a_model_with_it_are_refused(tmp_path, tiny_open_clip, monkeypatch):
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, "tiny", {"laion2b_s32b_b82k": {}, "dfn2b": {"quick_gelu": True}}
    )
    for name, right, wrong in [
        ("CLIP-tiny-laion2B-s32B-b82K.safetensors", "tiny", "tiny-quickgelu"),
        ("DFN2B-CLIP-tiny.safetensors", "tiny-quickgelu", "tiny"),
    ]:
        save_open_clip(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"use open_clip:{right}:"):
            load_clip(f"open_clip:{wrong}:{tmp_path / name}")
        assert load_clip(f"open_clip:{right}:{tmp_path / name}").embedding_dim == 12


def test_a_config_beside_the_weights_says_how_they_were_trained(tmp_path, tiny_open_clip):
    save_open_clip(tmp_path / "open_clip_model.safetensors")
    config = tmp_path / "open_clip_config.json"
    config.write_text('{"model_cfg": {"quick_gelu": true}}')
    with pytest.raises(CheckpointError, match="open_clip:tiny-quickgelu:"):
        load_clip(f"open_clip:tiny:{tmp_path}/open_clip_model.safetensors")
    config.write_text('{"model_cfg": {}}')
    with pytest.raises(CheckpointError, match="open_clip:tiny:"):
        load_clip(f"open_clip:tiny-quickgelu:{tmp_path}/open_clip_model.safetensors")
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json: not readable"):
        load_clip(f"open_clip:tiny:{tmp_path}/open_clip_model.safetensors")


def save_as_openai_does(path):
    """Write TorchScript that holds weights in half precision, and a number beside them."""
    model = open_clip.create_model("tiny", pretrained=None)
    root = torch.nn.Module()
    root.register_buffer("input_resolution", torch.tensor(32))
    for name, value in model.state_dict().items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(last, value.half())
    torch.jit.save(torch.jit.script(root), str(path))
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:'torch.load' received a zip file:UserWarning")
def test_torchscript_is_read_if_it_is_openais_own_file(tmp_path, tiny_open_clip, monkeypatch):
    file = tmp_path / "ViT-tiny.pt"
    model = save_as_openai_does(file)
    with pytest.raises(CheckpointError, match="open_clip:tiny-quickgelu:"):
        load_clip(f"open_clip:tiny:{file}")
    with pytest.raises(CheckpointError, match="runs its code, and this is not OpenAI's"):
        load_clip(f"open_clip:tiny-quickgelu:{file}")
    url = f"https://openaipublic/clip/models/{hashlib.sha256(file.read_bytes()).hexdigest()}/ViT-tiny.pt"
    published = {"openai": {"url": url, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-quickgelu", published)
    network = load_clip(f"open_clip:tiny-quickgelu:{file}").network
    assert torch.equal(network.text_projection, model.text_projection.half().float())


def transformers_names(state):
    """Rename open_clip's weights as transformers has them, with q, k and v apart."""
    inside = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    inside["attn.out_proj"] = "self_attn.out_proj"
    renamed = {"logit_scale": state["logit_scale"]}
    renamed["visual_projection.weight"] = state["visual.proj"].T
    renamed["text_projection.weight"] = state["text_projection"].T
    outside = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
    }
    for ours, theirs in outside.items():
        renamed[theirs] = state[ours]
    for kind in ("weight", "bias"):
        renamed[f"vision_model.pre_layrnorm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        renamed[f"vision_model.post_layernorm.{kind}"] = state[f"visual.ln_post.{kind}"]
        renamed[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        for ours, theirs in [("visual.", "vision_model"), ("", "text_model")]:
            source, target = f"{ours}transformer.resblocks.0", f"{theirs}.encoder.layers.0"
            for part, name in inside.items():
                renamed[f"{target}.{name}.{kind}"] = state[f"{source}.{part}.{kind}"]
            qkv = state[f"{source}.attn.in_proj_{kind}"].chunk(3)
            renamed |= {f"{target}.self_attn.{x}_proj.{kind}": part for x, part in zip("qkv", qkv, strict=True)}
    return {name: tensor.contiguous() for name, tensor in renamed.items()}


@pytest.fixture
def both_formats(tmp_path, tiny_open_clip):
    """Write the same random weights for open_clip and, with this activation, for transformers."""

    def write(hidden_act, folder="clip"):
        network = open_clip.create_model("tiny", pretrained=None)
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.2, generator=generator)
        state = {key: value.contiguous() for key, value in network.state_dict().items()}
        text = {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 1}
        text |= {"hidden_act": hidden_act, "bos_token_id": 49406, "eos_token_id": 49407}
        vision = text | {"hidden_size": 32, "intermediate_size": 128, "image_size": 32, "patch_size": 8}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
        model.load_state_dict(transformers_names(state))
        model.save_pretrained(tmp_path / folder)
        save_file(state, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors", tmp_path / folder

    return write


TEXTS = ["a purple cross on a white background", "", "снег", "a red ring " * 40]


def outputs(spec):
    encoder = load_clip(spec)
    text = encoder.encode_text(TEXTS)
    image = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return [text.states, text.embedding, encoder.encode_image(image)], text.mask


@pytest.mark.parametrize(("model", "hidden_act"), [("tiny", "gelu"), ("tiny-quickgelu", "quick_gelu")])
def test_both_libraries_give_the_same_from_the_same_weights(both_formats, model, hidden_act):
    file, folder = both_formats(hidden_act)
    ours, mask = outputs(f"open_clip:{model}:{file}")
    theirs, their_mask = outputs(f"transformers:{folder}")
    (other,) = {"tiny", "tiny-quickgelu"} - {model}
    assert torch.equal(mask, their_mask)
    wrong, _ = outputs(f"open_clip:{other}:{file}")
    for one, same, wrong_activation in zip(ours, theirs, wrong, strict=True):
        assert one.std() > 0.1
        assert (one - same).abs().max() <= 1e-5
        assert (one - wrong_activation).abs().max() > 1e-3


def test_a_transformers_config_with_the_wrong_activation_is_refused(both_formats):
    _, folder = both_formats("gelu", "openai-clip")
    with pytest.raises(CheckpointError, match="hidden_act is gelu, but these weights were trained with quick_gelu"):
        load_clip(f"transformers:{folder}")
    _, folder = both_formats("quick_gelu", "openai-clip")
    assert load_clip(f"transformers:{folder}").embedding_dim == 12


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
@pytest.mark.row(8)
def test_a_wrong_spec_says_what_to_do(spec, error, words):
    with pytest.raises(error, match=words):
        load_clip(spec)


def test_damaged_weights_are_named(tmp_path, tiny_open_clip):
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        load_clip(f"open_clip:tiny:{tmp_path}/w.safetensors")
