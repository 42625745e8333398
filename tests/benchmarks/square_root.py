"""How much faster the trace of the square root is than the eigenvalues of the product, at Inception's width.

PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/square_root.py [D]
"""

import sys
from time import perf_counter

import torch

from lightning_mav.metrics.frechet import trace_sqrt_product


def _noise(dim: int) -> list[torch.Tensor]:
    return [torch.randn(dim, 2 * dim, dtype=torch.float64) for _ in range(2)]


def main(dim: int = 2048) -> None:
    """Print both times and the relative difference."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scale = 3 * torch.exp(-torch.arange(dim, dtype=torch.float64) / 60)[:, None]  # features' variances decay
    mix = torch.randn(dim, dim, dtype=torch.float64) / dim**0.5
    a, b = (torch.cov(mix @ (scale * x) + 1e-3 * torch.randn_like(x)) for x in _noise(dim))
    began = perf_counter()
    ours = float(trace_sqrt_product(a, b))
    middle = perf_counter()
    theirs = float(torch.linalg.eigvals(a @ b).sqrt().real.sum())
    end = perf_counter()
    fast, slow = middle - began, end - middle
    print(f"D = {dim}: {fast:.2f} s, eigenvalues of the product {slow:.2f} s, {slow / fast:.1f} x; ", end="")
    print(f"relative difference {abs(ours - theirs) / theirs:.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
