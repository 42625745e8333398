"""Standard normal noise that depends on keys alone, never on batch size, rank or device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mav.seeding import generator

Key = tuple[int | str, ...]


class NoiseStream:
    """The successive noise draws of a batch, each sample from a generator of its own.

    Args:
        generators: one CPU generator per sample; each draw moves them on.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    @classmethod
    def keyed(cls, keys: Sequence[Key]) -> "NoiseStream":
        """Build the stream of the samples with these keys, for example ``("generate", seed, prompt_id, stage)``."""
        return cls([generator(*key) for key in keys])

    def draw(self, shape_per_sample: Sequence[int], shared_frames: bool = False) -> Tensor:
        """Draw a batch, (B,) + shape_per_sample, float32 on the CPU.

        Args:
            shape_per_sample: (C, F, H, W), or any shape when frames are not shared.
            shared_frames: all F frames get the same noise, as the spatial super-resolution needs (paper, section 3.2).
        """
        shape = tuple(shape_per_sample)
        drawn = (shape[0], 1, *shape[2:]) if shared_frames else shape
        noise = torch.stack([torch.randn(drawn, generator=one) for one in self.generators])
        return noise.expand(-1, *shape)


def keyed_noise(keys: Sequence[Key], shape: Sequence[int]) -> Tensor:
    """Draw (len(keys),) + shape, float32 on the CPU, each sample a function of its key alone."""
    return NoiseStream.keyed(keys).draw(shape)
