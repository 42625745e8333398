import gzip
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_mav.errors import ConfigError
from lightning_mav.networks import attention
from lightning_mav.networks.pseudo3d import TemporalConfig, is_temporal
from lightning_mav.networks.text_transformer import TextTransformerConfig
from lightning_mav.networks.unet import UNet, UNetConfig


def per_frame(network, video, timestep, **condition):
    frames = [network(video[:, :, f : f + 1], timestep, **condition) for f in range(video.shape[2])]
    return torch.cat(frames, 2)


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.randn(2, 3, 5, 8, 8, generator=generator),
        "timestep": torch.tensor([3, 700]),
        "image_embedding": torch.randn(2, 12, generator=generator),
    }


CASES = {
    "decoder": {},
    "text": {"text_dim": 10},
    "no scale and shift, no attention": {
        "scale_shift": False,
        "attention_downsamples": (),
        "mid_attention": False,
        "context_dim": None,
    },
    "fractional multiplier": {"channel_mult": (0.5, 1)},
    "classes, a number of heads, plain resampling": {"num_classes": 5, "num_heads": 4, "resblock_updown": False},
    "a text encoder of its own": {"text_encoder": TextTransformerConfig(24, 1, 2, 6, 20), "num_image_tokens": 0},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
@pytest.mark.parametrize("grad", [False, True])
def test_inflated_network_is_the_image_network_on_every_frame(make_unet, randomise, inputs, changes, grad):
    image_net, video_net = randomise(make_unet(**changes)), make_unet(temporal=True, extra_channels=4, **changes)
    report = video_net.load_state_dict(image_net.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys and all(map(is_temporal, report.missing_keys))

    condition = {"image_embedding": inputs["image_embedding"]}
    if "text_dim" in changes:
        mask = torch.arange(6) < torch.tensor([[3], [6]])
        condition |= {"text_embedding": torch.randn(2, 10), "text_states": torch.randn(2, 6, 10), "text_mask": mask}
    if "num_classes" in changes:
        condition["label"] = torch.tensor([1, 4])
    if "text_encoder" in changes:
        mask = torch.arange(6) < torch.tensor([[3], [6]])
        condition |= {"text_tokens": torch.tensor([[7] * 6, [9] * 6]), "text_mask": mask}
    new = {"fps": torch.tensor([4.0, 24.0]), "extra": torch.randn(2, 4, 5, 8, 8)}
    with torch.set_grad_enabled(grad):
        expected = per_frame(image_net, inputs["video"], inputs["timestep"], **condition)
        actual = video_net(inputs["video"], inputs["timestep"], **condition, **new)
    assert expected.std() > 1e-3
    assert (actual - expected).abs().max() <= 1e-5


def test_identity_holds_in_bfloat16(make_unet, randomise, inputs):
    image_net, video_net = randomise(make_unet()), make_unet(temporal=True)
    video_net.load_state_dict(image_net.state_dict(), strict=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = per_frame(image_net, inputs["video"], inputs["timestep"], image_embedding=inputs["image_embedding"])
        actual = video_net(inputs["video"], inputs["timestep"], image_embedding=inputs["image_embedding"])
    assert (actual - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_weights_of_another_precision_are_computed_in_it(make_unet, randomise, inputs, changes, dtype, tolerance):
    network = randomise(make_unet(temporal=True, **changes))
    condition = {"image_embedding": inputs["image_embedding"], "fps": torch.tensor([4.0, 24.0])}
    if "text_dim" in changes:
        condition |= {"text_embedding": torch.ones(2, 10), "text_states": torch.ones(2, 6, 10)}
    with torch.no_grad():
        expected = network(inputs["video"], inputs["timestep"], **condition)
        given = {name: value.to(dtype) for name, value in condition.items()}
        actual = network.to(dtype)(inputs["video"].to(dtype), inputs["timestep"], **given)
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def test_frames_interact_after_training_steps(make_unet, randomise, inputs):
    network = make_unet(temporal=True)
    network.load_state_dict(randomise(make_unet()).state_dict(), strict=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(3):
        output = network(
            inputs["video"], inputs["timestep"], fps=torch.ones(2), image_embedding=inputs["image_embedding"]
        )
        (output - inputs["video"].flip(2)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    changed = inputs["video"].clone()
    changed[:, :, 0] += 1
    with torch.no_grad():
        difference = network(changed, inputs["timestep"]) - network(inputs["video"], inputs["timestep"])
    assert difference[:, :, 1].abs().max() > 1e-5


def test_condition_changes_the_output(make_unet, randomise, inputs):
    network = randomise(make_unet(temporal=True, extra_channels=4))
    base = {"fps": torch.tensor([8.0, 8.0]), "image_embedding": inputs["image_embedding"]}
    base |= {"extra": torch.zeros(2, 4, 5, 8, 8), "image_dropped": torch.tensor([False, False])}
    others = [
        {"fps": torch.tensor([9.0, 9.0])},
        {"image_embedding": inputs["image_embedding"] + 1},
        {"image_dropped": torch.tensor([True, True])},
        {"extra": torch.ones(2, 4, 5, 8, 8)},
    ]
    with torch.no_grad():
        reference = network(inputs["video"], inputs["timestep"], **base)
        for other in others:
            changed = network(inputs["video"], inputs["timestep"], **base | other)
            assert (changed - reference).abs().max() > 1e-4, other


def test_dropped_embedding_no_longer_matters(make_unet, randomise, inputs):
    network, dropped = randomise(make_unet()), torch.tensor([True, True])
    with torch.no_grad():
        one = network(inputs["video"], inputs["timestep"], image_embedding=torch.ones(2, 12), image_dropped=dropped)
        other = network(inputs["video"], inputs["timestep"], image_embedding=torch.zeros(2, 12), image_dropped=dropped)
        none = network(inputs["video"], inputs["timestep"])
    assert torch.equal(one, other) and torch.allclose(one, none, atol=1e-6)


def test_masked_text_no_longer_matters(make_unet, randomise, inputs):
    network = randomise(make_unet(text_dim=10))
    states, mask = torch.randn(2, 6, 10), torch.arange(6) < torch.tensor([[3], [4]])
    text = {"image_embedding": inputs["image_embedding"], "text_embedding": torch.randn(2, 10), "text_mask": mask}
    noised = torch.where(mask[..., None], states, torch.randn(2, 6, 10))
    with torch.no_grad():
        one = network(inputs["video"], inputs["timestep"], text_states=states, **text)
        other = network(inputs["video"], inputs["timestep"], text_states=noised, **text)
    assert torch.allclose(one, other, atol=1e-6)


def test_checkpointing_changes_no_gradient(make_unet, randomise, inputs):
    gradients = []
    for checkpointing in (False, True):
        network = randomise(make_unet(temporal=True, checkpointing=checkpointing))
        output = network(inputs["video"], inputs["timestep"], image_embedding=inputs["image_embedding"])
        output.square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, atol=1e-6)


def test_size_that_does_not_divide_is_refused(make_unet):
    with pytest.raises(ConfigError, match=r"\(9, 8\).*multiples of 2"):
        make_unet()(torch.randn(1, 3, 1, 9, 8), torch.tensor([1]))


PUBLISHED = {
    "karlo_decoder.ckpt": ("model.", {"text_dim": 768}, {"out_channels": 6}),
    "karlo_sr.ckpt(first)": (
        "model_first_steps.",
        {
            "attention_downsamples": (),
            "mid_attention": False,
            "scale_shift": False,
            "image_embedding_dim": None,
            "context_dim": None,
        },
        {"in_channels": 6},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("temporal", [None, TemporalConfig()])
def test_published_weights_fit_key_for_key(shared_data, name, temporal):
    prefix, changes, channels = PUBLISHED[name]
    with torch.device("meta"):
        network = UNet(UNetConfig(temporal=temporal, fps=temporal is not None, **changes), **channels)
    own = {key: list(value.shape) for key, value in network.state_dict().items() if not is_temporal(key)}
    with gzip.open(shared_data / "checkpoint_shapes.json.gz") as file:
        published = json.load(file)[name]
    assert own == {key.removeprefix(prefix): shape for key, shape in published.items()}


class CopyCounter(TorchDispatchMode):
    """Counts copies that change the order of a large tensor's elements in memory."""

    def __init__(self, least_elements: int) -> None:
        super().__init__()
        self.least_elements, self.count = least_elements, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        source = args[1] if name == "copy_" else args[0] if args else None
        if name in ("clone", "copy_", "_to_copy", "contiguous") and isinstance(source, torch.Tensor):
            dense = out.numel() >= self.least_elements and source.shape == out.shape
            self.count += dense and source.stride() != out.stride() and 0 not in source.stride()
        return out


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_activations_are_copied_at_the_edges_only(make_unet, device, monkeypatch):
    # The fused kernels read and write these strides themselves; their fake form would not.
    monkeypatch.setattr(attention.fn, "scaled_dot_product_attention", lambda q, *_, **__: torch.empty_like(q))
    with FakeTensorMode(), torch.device(device), torch.no_grad():
        network = make_unet(temporal=True)
        video, timestep, embedding = torch.randn(2, 3, 4, 16, 16), torch.zeros(2), torch.zeros(2, 12)
        with CopyCounter(least_elements=2 * 4 * 8 * 8 * 32) as counter:
            network(video, timestep, image_embedding=embedding)
    assert counter.count <= 2
