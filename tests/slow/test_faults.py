"""Kills, full disks, read-only folders and damaged caches: the same command again ends with the same result.

Commands run in forks of this process, which has the libraries loaded. `ROSSAM_FAULT_SEED` chooses the moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

from rossam_kit import cli
from rossam_kit.config import load_profile
from rossam_kit.datasets.coco import write_coco_index
from rossam_kit.experiments.experiments import Experiments, RowSpec

from ..data.scenes import READERS, made_frames
from ..evaluation.test_experiments import TINY
from ..fake_datasets import write_twin
from ..test_notebooks import tables
from ..training.tiny_run import ARCHITECTURE, make_frames

OUT = "folder/out"
"""Everywhere: labelme's files name images relative to their own folder."""
SEED = int(os.environ.get("ROSSAM_FAULT_SEED", 0))
KILLS = {"train": 16, "evaluate": 14, "convert": 16, "notebook": 4}
MOST_SECONDS = 600
COMPARED = {"train": (".safetensors",), "evaluate": (".csv",)}
COMPARED["convert"] = (".gz", ".csv", ".json", ".txt", ".ini", ".npy", ".png", ".yaml")
WITH_TIMES = ("manifest.json",)
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`train.json`, `val.json` and `images`: still images with masks."""
    root = tmp_path_factory.mktemp("data")
    frames = make_frames(root / "images", 12, "photo")
    for name, part in (("train", frames[:8]), ("val", frames[8:])):
        write_coco_index(part, root / f"{name}.json", root / "images")
    return root


NETWORK = {"model.architecture": ARCHITECTURE, "model.checkpoint": None}
TRAINING = {"training.batch": 4, "training.lora_rank": 2, "training.loss": {"points": 64}}
TRAINING |= {"training.precision": "float32"}


def command(name: str, data: Path, out: Path) -> list[str]:
    """Arguments of `rossam` for a run of seconds that writes into `out`."""
    sets = NETWORK | TRAINING if name == "train" else {}
    options = [part for key, value in sets.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    named = ["--data", data / "images", "--out", out]
    if name == "train":
        named = ["--annotations", data / "train.json", "--val", data / "val.json", "--views", 24, *named]
        options += ["--device", "cpu"]
    elif name == "evaluate":
        named = ["--annotations", data / "val.json", "--method", "grabcut", *named]
    elif name == "convert":
        every = [part for f in ("coco", "mots", "labelme", "yolo", "authors") for part in ("--format", f)]
        named = ["--annotations", data / "val.json", "--method", "grabcut", "--workers", 1, *every, *named]
    else:
        return ["run", "--profile", "smoke", "--only", "01", "--report", str(out)]
    return [name, *map(str, named), *options]


def begin(arguments: list[str], output: Path, cache: Path) -> int:
    """Start `rossam` with these arguments in a fork, and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.environ |= {"ROSSAM_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        status = cli.main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(arguments: list[str], output: Path, cache: Path) -> tuple[int, str]:
    """Exit status and output of a whole run."""
    _, status = os.waitpid(begin(arguments, output, cache), 0)
    return os.waitstatus_to_exitcode(status), output.read_text(errors="replace")


def killed(arguments: list[str], output: Path, cache: Path, after: float) -> bool:
    """Run and send SIGKILL to all its processes after some seconds; False where it had ended before."""
    pid, end = begin(arguments, output, cache), time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def result(name: str, out: Path) -> dict[str, object]:
    """What must not depend on whether a run was broken off: file → content without times."""
    if name == "notebook":
        return tables(out)
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        key, is_lock = path.relative_to(out).as_posix(), path.name.endswith(".lock")
        if path.name == "log.jsonl":
            rows = map(json.loads, path.read_text().splitlines())
            found[key] = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        elif path.suffix in COMPARED.get(name, ()) and path.name not in WITH_TIMES and not is_lock:
            found[key] = path.read_bytes()
    assert found
    return found


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Result and seconds of an unbroken run of each command, computed once."""
    known: dict[str, tuple[dict, float]] = {}

    def get(name: str) -> tuple[dict, float]:
        if name not in known:
            folder, started = tmp_path_factory.mktemp(name), time.monotonic()
            status, output = run(command(name, data, folder / OUT), folder / "log", folder / "cache")
            assert status == 0, output
            known[name] = result(name, folder / OUT), time.monotonic() - started
        return known[name]

    return get


@pytest.mark.parametrize("name", KILLS)
def test_a_command_that_was_killed_ends_with_the_same_result(name, data, whole, tmp_path):
    expected, seconds = whole(name)
    draw, kills, end = random.Random(f"{SEED} {name}"), 0, time.monotonic() + MOST_SECONDS
    arguments, log = command(name, data, tmp_path / OUT), tmp_path / "log"
    while kills < KILLS[name] and time.monotonic() < end:
        if killed(arguments, log, tmp_path / "cache", draw.uniform(0.02, 1.0) * seconds):
            kills += 1
        else:  # it ended first: its result counts, and a new run is broken off
            assert result(name, tmp_path / OUT) == expected, log.read_text()
            shutil.rmtree(tmp_path / OUT)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    status, output = run(arguments, log, tmp_path / "cache")
    assert status == 0, output
    assert result(name, tmp_path / OUT) == expected
    print(f"{name}: {kills} kills survived")


def test_two_runs_at_once_share_a_cache_and_a_report(tmp_path):
    arguments = ["run", "--profile", "smoke", "--only", "02", "--jobs", "1", "--report"]
    status, output = run([*arguments, str(tmp_path / "alone")], tmp_path / "log", tmp_path / "other-cache")
    assert status == 0, output
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    both = [begin([*arguments, str(tmp_path / "both")], log, tmp_path / "cache") for log in logs]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in both]
    assert statuses == [0, 0], "\n".join(log.read_text(errors="replace") for log in logs)
    assert tables(tmp_path / "both") == tables(tmp_path / "alone") != {}
    pages = [
        {path.relative_to(folder).as_posix() for path in (*folder.rglob("*.html"), *(folder / "_static").rglob("*"))}
        for folder in (tmp_path / "both", tmp_path / "alone")
    ]
    assert pages[0] == pages[1]


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A small disk, mounted for the test; the test skips where this is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.name != "posix"
        or os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]).returncode
    ):
        pytest.skip("a disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def remount(place: Path, *options: str) -> None:
    subprocess.run(["mount", "-o", ",".join(("remount", *options)), place], check=True)


def has_clear_error(output: str) -> bool:
    """Whether a run ended with an error that names a remedy, without a traceback."""
    return "error: " in output and "Remedy: " in output and "Traceback" not in output


@pytest.mark.parametrize("name", ["train", "evaluate", "convert"])
def test_a_full_disk_is_a_clear_error_and_the_next_run_ends_well(name, data, whole, tmp_path, disk):
    expected, _ = whole(name)
    arguments, log = command(name, data, disk / "out"), tmp_path / "log"
    for kilobytes in (4, 16, 64, 100, 160, 200, 300, 500, 800):
        remount(disk, f"size={kilobytes}k")
        status, output = run(arguments, log, tmp_path / "cache")
        if status == 0:
            break
        assert has_clear_error(output), f"{kilobytes} kB: {output}"
    remount(disk, "size=64m")
    status, output = run(arguments, log, tmp_path / "cache")
    assert status == 0, output
    assert result(name, disk / "out") == expected
    assert not [path for path in disk.rglob(".*") if path.is_file() and not path.name.endswith(".lock")]


@pytest.mark.parametrize("name", ["train", "evaluate", "convert"])
def test_a_read_only_folder_is_a_clear_error(name, data, whole, tmp_path, disk):
    remount(disk, "size=64m", "ro")
    status, output = run(command(name, data, disk / "out"), tmp_path / "log", tmp_path / "cache")
    assert status == 2 and has_clear_error(output), output
    remount(disk, "rw")
    status, output = run(command(name, data, disk / "out"), tmp_path / "log", tmp_path / "cache")
    assert status == 0 and result(name, disk / "out") == whole(name)[0], output


@pytest.mark.parametrize("mode", ["ro", "size=8k"])
def test_a_cache_that_is_read_only_or_full_changes_no_result(mode, whole, data, tmp_path, disk):
    remount(disk, *(("size=64m", "ro") if mode == "ro" else (mode,)))
    status, output = run(command("convert", data, tmp_path / OUT), tmp_path / "log", disk / "cache")
    assert status == 0 and result("convert", tmp_path / OUT) == whole("convert")[0], output


# --- damaged caches ---------------------------------------------------------------------------------------------------


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit, in the middle."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGES = pytest.mark.parametrize("damage", [cut_short, flipped])


def without_locks(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


@DAMAGES
def test_each_file_of_the_experiments_cache_is_computed_again_with_a_warning(damage, tmp_path):
    cache, spec = tmp_path / "cache", RowSpec(label="fine-tuned", method="hq-sam", trains=("hq_head",))

    def scores() -> pd.DataFrame:
        return Experiments(load_profile("smoke", TINY), cache).result(spec).scores

    expected = scores()
    kinds = {}
    for path in without_locks(cache):
        kinds.setdefault((path.parts[len(cache.parts)], path.name if path.suffix != ".png" else ".png"), path)
    kept = {path: path.read_bytes() for path in without_locks(cache)}
    for (room, name), path in kinds.items():
        if room == "runs":  # scores that are there need no network
            shutil.rmtree(cache / "scores")
        path.write_bytes(damage(path.read_bytes()))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = scores()
        pd.testing.assert_frame_equal(again, expected)
        messages = " ".join(str(w.message) for w in caught)
        unnoticed = name == "key.json" or (name == "log.jsonl" and damage is flipped)  # no score depends on these
        assert "again" in messages or unnoticed, (room, name, messages)
        pictures = [path for path in kept if path.suffix == ".png"]
        assert all(path.read_bytes() == kept[path] for path in pictures), (room, name)


@DAMAGES
@pytest.mark.parametrize("name", ["sat-mtb", "isaid", "satsot"])
def test_each_file_of_a_reader_s_cache_is_computed_again_with_a_warning(name, damage, tmp_path):
    write_twin(made_frames(tmp_path / "source"), name, tmp_path / "set")
    cache = tmp_path / "cache"
    expected = list(READERS[name](tmp_path / "set", cache))
    files = [path for path in without_locks(cache) if path.suffix != ".png"]
    assert files
    for path in files:
        content = path.read_bytes()
        path.write_bytes(damage(content))
        if path.parent.name != "indices":  # what is below is read only where the whole index is gone
            shutil.rmtree(cache / "indices")
        with pytest.warns(UserWarning, match="again"):
            assert list(READERS[name](tmp_path / "set", cache)) == expected
        assert path.read_bytes() == content


@DAMAGES
def test_a_damaged_shard_of_a_conversion_is_named_and_made_again(damage, data, whole, tmp_path):
    arguments, log = command("convert", data, tmp_path / OUT), tmp_path / "log"
    assert run(arguments, log, tmp_path / "cache")[0] == 0
    files = [*(tmp_path / OUT / "shards").iterdir(), *([tmp_path / OUT / "records.csv"] if damage is cut_short else [])]
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
        status, output = run(arguments, log, tmp_path / "cache")
        if status:
            assert has_clear_error(output) and path.name in output, output
            path.unlink()
            status, output = run(arguments, log, tmp_path / "cache")
        assert status == 0 and result("convert", tmp_path / OUT) == whole("convert")[0], output
