"""Steps that are not finite: what is seen of a batch, and what becomes of its gradients."""

import pytest
import torch
from torch import nn

from lightning_mav.errors import ConfigError, NumericError
from lightning_mav.stages.finite import FiniteSteps

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def judged():
    """Return a function that takes one step on batches of (index, factor of its loss); gives the gradient, or None."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def run(finite, *batches, **options):
        optimizer.zero_grad()
        for index, factors in batches:
            losses = model(torch.tensor(factors)[:, None])[:, 0]
            finite.see(torch.tensor(index), losses).backward()
        finite.judge(model, optimizer, 7, **options)
        return model.weight.grad

    return run


def test_a_finite_step_keeps_its_gradient_to_the_bit(judged):
    factors = torch.tensor([0.1, 0.7, 0.3])
    gradient = judged(FiniteSteps("stop", 1), ([0, 1, 2], factors.tolist()))
    weight = nn.Parameter(torch.ones(1, 1))
    (factors[:, None] @ weight)[:, 0].mean().backward()
    assert torch.equal(gradient, weight.grad)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_samples_whose_loss_is_not_finite_are_named_in_whatever_batch_of_the_step(judged, bad):
    with pytest.raises(NumericError, match="the loss is not finite at step 7, samples 5;"):
        judged(FiniteSteps("stop", 1), ([4, 5], [1.0, bad]), ([6, 8], [1.0, 1.0]))


def test_gradients_that_overflow_name_all_samples_of_the_step(judged):
    with pytest.raises(NumericError, match="the gradient is not finite at step 7, samples 4, 5;"):
        judged(FiniteSteps("stop", 1), ([4], [3e38]), ([5], [3e38]))


def test_a_loss_whose_gradient_would_be_finite_is_found_as_well():
    model, finite = nn.Linear(1, 1), FiniteSteps("stop", 1)
    loss = model(torch.zeros(1, 1)) + INF
    finite.see(torch.tensor([3]), loss[0]).backward()
    with pytest.raises(NumericError, match="samples 3"):
        finite.judge(model, torch.optim.SGD(model.parameters()), 0)


def test_steps_are_left_out_until_there_are_too_many_in_a_row(judged):
    finite, bad, good = FiniteSteps("skip", 2), ([1], [NAN]), ([2], [1.0])
    for batch in (bad, bad, good, bad, bad):
        with pytest.warns(UserWarning, match="this step is left out") if batch is bad else torch.enable_grad():
            assert (judged(finite, batch) is None) == (batch is bad)
    assert finite.state() == [4, 2]
    again = FiniteSteps("skip", 2)
    again.load(finite.state())
    with pytest.raises(NumericError, match="after 2 steps left out in a row"):
        judged(again, bad)


def test_a_search_for_the_scale_of_gradients_overflows_without_an_end(judged):
    finite = FiniteSteps("stop", 2)
    with pytest.warns(UserWarning, match="left out"):
        assert judged(finite, ([1], [INF]), searching=True) is None
    assert finite.state() == [1, 1]


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match=r"model\.max_skipped"):
        FiniteSteps("skip", 0)
