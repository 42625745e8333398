import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from lightning_mav.metrics.i3d import I3D, LEAST_FRAMES, pad_same
from lightning_mav.seeding import generator

KEYS_SHA256 = "97cd133f75d479bd193d224cd327569cbd043318de072c887d2101ad9f5ac36d"
"""Of the sorted lines "key shape" of the PyTorch port's state dict."""


def seeded_state(shapes):
    """Weights that are a function of their key, in the range of trained ones."""
    state = {}
    for key, shape in shapes.items():
        draw = torch.randn(shape, generator=generator("i3d", key)) if shape else torch.zeros(())
        if key.endswith("conv3d.weight"):
            draw = draw * math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith(("bn.weight", "running_var")):
            draw = 1 + 0.2 * draw.clamp(-2, 2)
        elif shape:
            draw = 0.1 * draw
        state[key] = draw if shape else draw.long()
    return state


@pytest.fixture(scope="module")
def model():
    model = I3D()
    model.load_state_dict(seeded_state({key: tuple(value.shape) for key, value in model.state_dict().items()}))
    return model.eval()


def clip(num_frames=LEAST_FRAMES):
    return torch.rand(1, 3, num_frames, 224, 224, generator=generator("i3d", "video")) * 2 - 1


def test_the_key_layout_is_that_of_the_published_port(model):
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == KEYS_SHA256


def test_logits_are_those_of_the_reference_on_the_same_seeded_weights(model):
    expected = torch.tensor(json.loads(Path(__file__).with_name("i3d_logits.json").read_text()))
    with torch.no_grad():
        logits = model(clip())
    assert logits.shape == (1, 400) and expected.std() > 0.1
    assert (logits[0] - expected).abs().max() < 1e-4


def test_it_needs_nine_frames(model):
    with torch.no_grad(), pytest.raises(RuntimeError):
        model(clip(LEAST_FRAMES - 1))


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 2), (3, 1), (2, 2), (1, 1)])
def test_same_padding_gives_the_ceiling_of_n_over_stride_with_the_odd_zero_at_the_end(n, size, stride):
    x = torch.ones(1, 1, n, 1, 1)
    padded = pad_same(x, (size, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    assert max(len(padded) - size, -1) // stride + 1 == math.ceil(n / stride)
    before, after = int(padded.argmax()), int(padded.flip(0).argmax())
    assert padded.sum() == n and after - before in (0, 1)
