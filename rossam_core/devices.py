"""Which processor, which precision, how many cores: the one place that decides."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from rossam_core.errors import RossamError

Part = TypeVar("Part")
Result = TypeVar("Result")


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
    """Whether bfloat16 matrix products beat float32's: AMX on a CPU, Ampere and later on CUDA.

    AVX512-BF16 alone does not count: its one dot-product unit gets through half of what float32's two multiply-add
    units do (`benchmarks/precision.py`).
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return bool(probe and probe())
    return False


def core_count() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_threads(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`[work(part) for part in parts]`, each in a thread of its own that computes on its share of the cores.

    torch computes outside the interpreter's lock, so two halves of a batch in two threads are done sooner than the
    whole on two cores, which wait for one another at every layer (`benchmarks/predictor.py`).
    """
    if len(parts) < 2:
        return [work(part) for part in parts]

    before = torch.get_num_threads()

    def on_its_share(part: Part) -> Result:
        torch.set_num_threads(max(before // len(parts), 1))
        return work(part)

    try:
        return list(_pool().map(on_its_share, parts))
    finally:
        torch.set_num_threads(before)  # torch keeps one number for all threads


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(core_count(), 2), "rossam")


def free_memory() -> int:
    """Bytes of memory that are free or can be made so, within the limits set for this process's control group."""
    return min([psutil.virtual_memory().available, *_free_in_groups()])


def _free_in_groups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left under each memory limit of Linux control groups (version 2): those of containers, batch systems."""
    with contextlib.suppress(OSError, IndexError):
        own = root / Path("/proc/self/cgroup").read_text(encoding="utf-8").split("0::/", 1)[1].splitlines()[0]
        for group in [own, *own.parents]:
            limit = group / "memory.max"
            if limit.exists() and (most := limit.read_text().strip()) != "max":
                facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                used = int((group / "memory.current").read_text()) - int(facts["inactive_file"])
                yield max(int(most) - used, 0)


def autocast(device: torch.device, precision: str = "auto") -> contextlib.AbstractContextManager:
    """Autocast context for `precision` (`auto`, `float32`, `bfloat16`) on `device`."""
    use = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device.type))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=use)
