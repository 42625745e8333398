import pytest
import torch
from torch import nn

from lightning_mav.checkpoint.ema import Ema


def make_module():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    return module


def fill(module, value):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_covers_the_trainable_parameters_only_and_is_frozen():
    module = make_module()
    ema = Ema(module)
    assert ema.names == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert len(list(ema.parameters())) == 4
    assert not any(parameter.requires_grad for parameter in ema.parameters())


def test_follows_the_closed_form_with_a_warming_decay():
    module = make_module()
    fill(module, 0.0)
    ema = Ema(module, decay=0.5)
    expected = 0.0
    for n in range(20):
        fill(module, float(n))
        ema.update(module)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert int(ema.num_updates) == 20
    assert all(torch.allclose(p, torch.tensor(expected)) for p in ema.parameters())


def test_applied_swaps_in_and_back_also_after_an_error():
    module = make_module()
    fill(module, 1.0)
    ema = Ema(module)
    fill(module, 5.0)
    with ema.applied(module):
        assert float(module[2].weight.detach().unique()) == 1.0
        assert float(module[0].weight.unique()) == 5.0  # frozen parts have no average
    assert float(module[2].weight.detach().unique()) == 5.0
    with pytest.raises(KeyError), ema.applied(module):
        raise KeyError
    assert float(module[2].weight.detach().unique()) == 5.0
    assert float(ema.averages["2/weight"].unique()) == 1.0


def test_state_is_a_full_state_dict_with_averages():
    module = make_module()
    fill(module, 1.0)
    ema = Ema(module)
    fill(module, 5.0)
    state = ema.state(module)
    assert state.keys() == module.state_dict().keys()
    assert float(state["2.weight"].unique()) == 1.0
    assert float(state["0.weight"].unique()) == 5.0
    make_module().load_state_dict(state)


def test_saves_and_loads_with_the_module_that_holds_it():
    module = make_module()
    ema = Ema(module)
    ema.update(module)
    copy = Ema(make_module())
    copy.load_state_dict(ema.state_dict())
    assert int(copy.num_updates) == 1
    assert all(torch.equal(a, b) for a, b in zip(ema.parameters(), copy.parameters(), strict=True))
