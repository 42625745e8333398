"""What one of several devices holds under FSDP2: arithmetic on the bytes of a single one.

Nothing is run on several ranks. Shares are taken as equal, all gradients as there at the peak, and of the network as
gathered what is outside of blocks and two blocks (the one that computes and the next), with one block's gradients.
"""

from collections import Counter

from torch import nn

from lightning_mav.planning.meter import Bytes
from lightning_mav.stages.sharding import UNITS

FLOAT32 = 4
SHARED = ("weights", "gradients", "optimizer", "ema")


def gathered_bytes(model: nn.Module, precision: str) -> int:
    """Return the bytes of gathered weights and of gradients before they are spread, at most at one time."""
    width = 2 if precision == "bf16-mixed" else FLOAT32
    blocks = sorted((_size(module) for module in model.modules() if isinstance(module, UNITS)), reverse=True)
    rest = _size(model) - sum(blocks)
    return (rest + sum(blocks[:2])) * width + max(rest, *blocks[:1]) * FLOAT32


def on_one_rank(peak: Bytes, ranks: int, trained: int, gathered: int) -> Bytes:
    """Return the bytes of one of ``ranks`` devices at a moment that is ``peak`` on a single one.

    Args:
        peak: Bytes by kind.
        ranks: Devices.
        trained: Parameters with a gradient.
        gathered: As ``gathered_bytes`` gives.
    """
    whole = peak | {"gradients": trained * FLOAT32}
    shares = {kind: -(-whole[kind] // ranks) for kind in SHARED}
    return Counter(shares | {"activations": peak["activations"], "gathered": gathered})


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
