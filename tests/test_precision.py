"""Which devices compute in bfloat16."""

import pytest
import torch

from lightning_mav.precision import on_device


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),  # what other architectures report
    ],
)
def test_a_cpu_uses_bf16_where_it_multiplies_in_it(capabilities, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert on_device("auto", "cpu") == precision
    assert on_device("auto", "cuda") == "bf16"
    assert on_device("float32", "cpu") == "float32"
