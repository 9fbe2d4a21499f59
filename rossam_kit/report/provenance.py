"""Where numbers come from: settings, software, processor, commit, seeds."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rossam_core.settings import flatten
from rossam_kit.config import Profile
from rossam_kit.report.labels import group_label

if TYPE_CHECKING:
    from rossam_core.model.segmenter import PromptableSegmenter

PACKAGES = ("torch", "torchvision", "segment-anything", "peft", "accelerate", "transformers", "numpy", "pandas",
            "scipy", "opencv-python-headless", "opencv-python", "pycocotools", "matplotlib")  # fmt: skip
ROOT = Path(__file__).parents[2]


def versions() -> dict[str, str]:
    """Versions of what computes, Python first; packages that are not installed are left out."""
    numbers = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            numbers[name] = importlib.metadata.version(name)
    return numbers


def commit() -> str:
    """The repository's commit, marked where files differ from it; a reason where there is none."""
    try:
        head, status = (
            subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"
    return head.strip() + (" with uncommitted changes" if status.strip() else "")


def hardware() -> dict[str, str]:
    """Processor, cores this process may use, memory, graphics processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"processor": _processor(), "cores": str(cores), "system": f"{platform.system()} {platform.machine()}"}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True)
        facts["graphics"] = ", ".join(listed.stdout.split("\n")[:-1]) or "none"
    return facts


def settings_table(profile: Profile) -> pd.DataFrame:
    """Every field of the profile by its dotted key, defaults included; of further datasets what is no default.

    A group without fields has no row.
    """
    values = profile.model_dump(mode="json")
    values["datasets"] = {
        n: data.model_dump(mode="json", exclude_defaults=True) for n, data in profile.datasets.items()
    }
    return pd.DataFrame([(key, str(value)) for key, value in flatten(values)], columns=["setting", "value"])


def machine_table() -> pd.DataFrame:
    """Hardware and versions, one row each."""
    return pd.DataFrame([*hardware().items(), *versions().items()], columns=["what", "value"])


def parameter_table(model: PromptableSegmenter) -> pd.DataFrame:
    """Parameters of each named group of the network."""
    groups = {name: sum(p.numel() for _, p in group) for name, group in model.parameter_groups().items()}
    rows = [(group_label(name), count) for name, count in groups.items() if count]
    return pd.DataFrame([*rows, ("in all", sum(groups.values()))], columns=["group", "parameters"])


def collect(profile: Profile) -> dict[str, dict[str, str]]:
    """What the report's page about its making shows."""
    training = ", ".join(map(str, profile.seeds))
    seeds = f"data {profile.data.synthetic.seed}, training {training}, everything else {profile.seed}"
    run = {"commit": commit(), "command": "./run_all.sh " + " ".join(sys.argv[2:]), "seeds": seeds}
    return {"Run": run, "Hardware": hardware(), "Versions": versions()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
