"""Attention over few tokens on a processor: fused kernel beside step-by-step products, forward and backward.

Sizes are those of 8 images under `vit_t` (global blocks, windows) and of one under `vit_b`, with the relative positions
folded in (`rossam_core.model.sam.SplitAttention`). bfloat16, one core; medians of interleaved rounds. No backward pass
where scores would not be stored.

Usage: python benchmarks/attention.py [--rounds 9]
"""

import argparse
import statistics
import time
from unittest import mock

import torch

from rossam_core.model import sam

SIZES = {"vit_t global": (8, 3, 256, 32), "vit_t windows": (32, 3, 64, 16), "vit_b windows": (25, 12, 196, 28)}
SIZES |= {"vit_b global": (1, 12, 4096, 128)}
WIDTH = 64


def seconds(fused: bool, inputs: list[torch.Tensor], grad: torch.Tensor) -> tuple[float, float]:
    """Of the forward and of the backward pass, by the fused kernel or by separate products."""
    with mock.patch.object(sam, "has_amx", lambda: fused), torch.set_grad_enabled(grad.shape[-2] <= sam.FEW_TOKENS):
        start = time.perf_counter()
        output = sam._attention(*inputs, WIDTH**-0.5)
        middle = time.perf_counter()
        if output.requires_grad:
            output.backward(grad)
        return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for name, (batch, heads, tokens, positions) in SIZES.items():
        widths = (WIDTH + positions, WIDTH + positions, WIDTH)
        inputs = [torch.randn(batch, heads, tokens, width).bfloat16().requires_grad_() for width in widths]
        grad = torch.randn(batch, heads, tokens, WIDTH).bfloat16()
        times = [[seconds(fused, inputs, grad) for fused in (True, False)] for _ in range(rounds + 1)][1:]
        for i, direction in enumerate(("forward", "backward")[: 1 + (tokens <= sam.FEW_TOKENS)]):
            fused, separate = (1e3 * statistics.median(both[way][i] for both in times) for way in (0, 1))
            print(f"{name:14} {direction:8} {fused:7.1f} → {separate:7.1f} ms, {fused / separate:.1f} times as fast")


if __name__ == "__main__":
    main()
