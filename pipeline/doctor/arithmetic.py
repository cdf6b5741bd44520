"""Whether bitsandbytes multiplies 4-bit weights correctly, checked on a small product against float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.doctor.findings import Finding
from pipeline.doctor.packages import TRAINING_EXTRA
from pipeline.environment import torch_is_installed

if TYPE_CHECKING:
    import torch

TOLERANCE = 0.15
"""Limit of ``relative_error``. Rounding normally distributed weights to NF4 in blocks of 64 gives about 0.09; a broken
backend gives 1 or more."""
ROWS, INPUTS, OUTPUTS = 8, 512, 256


def check_bitsandbytes() -> list[Finding]:
    """One finding for the CPU and, if torch can use a GPU, one for CUDA."""
    if not torch_is_installed():
        return [Finding("bitsandbytes.cpu", "FAIL", "not tried without torch", TRAINING_EXTRA)]
    import torch

    findings = [_check(torch.device("cpu"))]
    if torch.cuda.is_available():
        findings.append(_check(torch.device("cuda")))
    return findings


def _check(device: torch.device) -> Finding:
    check, remedy = f"bitsandbytes.{device.type}", "reinstall bitsandbytes and torch from one of the constraints"
    golden = device.type == "cuda"
    try:
        error = relative_error(device)
    except Exception as problem:  # a missing library or kernel: the remedy is the same
        line = (str(problem).splitlines() or [""])[0]
        return Finding(check, "FAIL", f"{type(problem).__name__}: {line}", remedy, blocks_golden=golden)
    detail = f"4-bit product differs from float32 by {error:.3f} of its norm, at most {TOLERANCE}"
    if not error <= TOLERANCE:
        return Finding(check, "FAIL", detail, remedy, blocks_golden=golden)
    return Finding(check, "OK", detail)


def relative_error(device: torch.device) -> float:
    """Relative error of an NF4 product: norm of its difference from the float32 product, over the norm of that.

    Inputs (ROWS, INPUTS) times transposed weights (OUTPUTS, INPUTS), both normally distributed with a fixed seed.
    """
    import torch
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import quantize_4bit

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, INPUTS, generator=generator).to(device)
    weights = torch.randn(OUTPUTS, INPUTS, generator=generator).to(device)
    packed, state = quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    product = matmul_4bit(inputs, packed.t(), quant_state=state)
    exact = inputs @ weights.t()
    return float((product - exact).norm() / exact.norm())
