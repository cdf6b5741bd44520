"""The machine's own speed, beside which a rate of training is read."""

from __future__ import annotations

import time

import torch

SIDE, REPEATS = 2048, 10


def matmul_gflop_per_s() -> float:
    """Speed of a bfloat16 product of square matrices in as many threads as torch has, best of ten."""
    left, right = (torch.randn(SIDE, SIDE).to(torch.bfloat16) for _ in range(2))
    fastest_s = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.mm(left, right)
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return 2 * SIDE**3 / fastest_s / 1e9
