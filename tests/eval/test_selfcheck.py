from dataclasses import replace

import pytest

from eval import selfcheck as module
from eval.selfcheck import CHECKS, orthogonal_samples, selfcheck
from lightning_mav.errors import NumericError


def test_every_closed_form_holds_and_what_needs_weights_says_so():
    lines = selfcheck().splitlines()
    assert len(lines) == len(CHECKS)
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * (len(CHECKS) - 1)
    assert lines[-1].startswith(("not run  FVD of zeros against ones: i3d", "ok       FVD of zeros"))


def test_a_wrong_value_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "CHECKS", (replace(CHECKS[0], expected=203.0),))
    with pytest.raises(NumericError, match=r"wrong: Frechet, diagonal: 214\.2"):
        selfcheck()


def test_the_samples_are_what_they_say():
    z = orthogonal_samples()
    assert z.sum(0).abs().max() == 0 and (z.T @ z / 15 - 16 / 15 * z.new_ones(8).diag()).abs().max() < 1e-12
