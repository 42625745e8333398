"""How much faster the trace of the square root is than the eigenvalues of the product, at Inception's width.

PYTHONPATH=. OMP_NUM_THREADS=1 python tests/benchmarks/square_root.py [D]
"""

import sys
from time import perf_counter

import torch
from torch import Tensor

from lightning_mav.metrics.frechet import trace_sqrt_product


def main(dim: int = 2048) -> None:
    """Print both times and the relative difference: for variances that decay as features' do, and for equal ones."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decaying = 3 * torch.exp(-torch.arange(dim, dtype=torch.float64) / 60)
    for name, deviations in {"decaying": decaying, "equal": torch.ones(dim, dtype=torch.float64)}.items():
        print(f"D = {dim}, {name} variances: {_compared(_covariance(deviations), _covariance(deviations))}")


def _covariance(deviations: Tensor) -> Tensor:
    """Return a covariance (D, D) of 2 D samples with these deviations, mixed, and a little noise."""
    dim = len(deviations)
    mix = torch.randn(dim, dim, dtype=torch.float64) / dim**0.5
    samples = mix @ (deviations[:, None] * torch.randn(dim, 2 * dim, dtype=torch.float64))
    return torch.cov(samples + 1e-3 * torch.randn_like(samples))


def _compared(a: Tensor, b: Tensor) -> str:
    began = perf_counter()
    ours = float(trace_sqrt_product(a, b))
    middle = perf_counter()
    theirs = float(torch.linalg.eigvals(a @ b).sqrt().real.sum())
    end = perf_counter()
    fast, slow = middle - began, end - middle
    difference = abs(ours - theirs) / theirs
    return f"{fast:.2f} s, eigenvalues of the product {slow:.2f} s, {slow / fast:.1f} x; difference {difference:.1e}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
