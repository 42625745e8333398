"""Where bfloat16 pays: on GPUs, and on CPUs that multiply in it. Other CPUs emulate it, slower than float32."""

from typing import Literal

import torch

Precision = Literal["auto", "bf16", "float32"]
"""``auto`` is bf16 where the hardware multiplies in it, float32 elsewhere."""


def multiplies_bf16(device: str) -> bool:
    """Return whether a device, "cpu" or another, multiplies in bfloat16."""
    return device != "cpu" or any(map(torch.cpu.get_capabilities().get, ("amx_bf16", "avx512_bf16")))


def on_device(precision: Precision, device: str) -> Literal["bf16", "float32"]:
    """Return what ``precision`` means on a device."""
    if precision == "auto":
        return "bf16" if multiplies_bf16(device) else "float32"
    return precision
