"""Stateless randomness: every random number is a function of a key, so nothing random is ever stored."""

from hashlib import blake2b

import torch


def hashed_seed(*key: int | str) -> int:
    """Return a 63-bit seed that depends on every part of ``key`` and on their order."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Return a fresh CPU generator seeded by ``key``, for example ``("noise", seed, index, position)``."""
    return torch.Generator().manual_seed(hashed_seed(*key))
