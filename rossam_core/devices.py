"""Choice of device, precision and threads."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from rossam_core.errors import RossamError

Part = TypeVar("Part")


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` → cuda, then mps, then cpu; a named device that is absent is a `RossamError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RossamError(f"device {name}", f"is not usable here ({error})", "use --device cpu, or auto") from error
    return device


@functools.cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether bfloat16 matrix products clearly beat float32's: Ampere and later on CUDA, AMX on a CPU.

    With AVX512-BF16 but no AMX it depends on the processor: AMD's gain (2.4 times on Zen 4), others lose
    (`benchmarks/precision.py` compares whole training steps). Nothing is timed here: all processes of a machine
    must decide alike, or the same run would give other weights.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        return has_amx() or (_cpu_has("_is_avx512_bf16_supported") and _is_amd())
    return False


def has_amx() -> bool:
    """Whether the processor has AMX, Intel's units for matrix products."""
    return _cpu_has("_is_amx_tile_supported")


def _cpu_has(feature: str) -> bool:
    return bool(getattr(torch.cpu, feature, lambda: False)())


def _is_amd() -> bool:
    description = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (description.read_text() if description.exists() else platform.processor())


def core_count() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def thread_count(count: int | None) -> Iterator[None]:
    """Compute with `count` threads of torch inside the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_threads(work: Callable[[Part], Any], parts: Sequence[Part]) -> list:
    """`[work(part) for part in parts]`, each in its own thread with its share of the cores.

    Two halves of a batch in two threads are faster than the whole on two cores, which wait for each other at every
    layer (`benchmarks/predictor.py`).
    """
    if len(parts) < 2:
        return [work(part) for part in parts]
    before = torch.get_num_threads()

    def on_its_share(part: Part) -> Any:
        torch.set_num_threads(max(before // len(parts), 1))
        return work(part)

    with thread_count(before):  # torch has one number for all threads
        return list(_pool().map(on_its_share, parts))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(core_count(), 2), "rossam")


def autocast(device: torch.device, precision: str = "auto") -> contextlib.AbstractContextManager:
    """Autocast context for `precision` (`auto`, `float32`, `bfloat16`) on `device`."""
    use = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device.type))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=use)
