"""The wheel, installed outside of the checkout: commands work from another folder, and nothing of the checkout is used.

The environment has the packages of the one that runs the tests, but not the project.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rossam_kit.datasets.coco import write_coco_index

from ..training.tiny_run import ARCHITECTURE, make_frames

ROOT = Path(__file__).parents[2]
NETWORK = {"model.architecture": ARCHITECTURE, "model.checkpoint": None, "training.lora_rank": 2, "training.batch": 4}
NETWORK |= {"training.loss": {"points": 64}, "training.precision": "float32"}
IGNORED = shutil.ignore_patterns(".*", "build", "*.egg-info", "reports", "__pycache__", "tests")


@pytest.fixture(scope="module")
def rossam(tmp_path_factory):
    """Runs the installed `rossam` in an empty folder: arguments → status and output; `folder` is that folder."""
    root = tmp_path_factory.mktemp("Ünïcode and spaces")
    shutil.copytree(ROOT, root / "source", ignore=IGNORED)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        root,
        root / "source",
    ]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "env"], check=True)
    python, (wheel,) = root / "env/bin/python", root.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    site = next((root / "env/lib").glob("python*/site-packages"))
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.rmtree(root / "source")
    folder = root / "elsewhere"
    folder.mkdir()

    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ROSSAM_CALLED_FROM")}
    environment |= {"ROSSAM_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [root / "env/bin/rossam", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    run.folder, run.python, run.environment = folder, python, environment
    return run


def test_the_installed_package_is_the_wheel_s(rossam):
    code = "import rossam_core, rossam_kit; print(rossam_core.__file__, rossam_kit.__file__)"
    options = {"cwd": rossam.folder, "env": rossam.environment, "capture_output": True, "text": True, "check": True}
    done = subprocess.run([rossam.python, "-c", code], **options)
    assert done.stdout.count("env/lib") == 2 and str(ROOT) not in done.stdout


@pytest.mark.timeout(1800)
def test_train_evaluate_convert_and_import_work_outside_of_the_checkout(rossam):
    frames = make_frames(rossam.folder / "images", 12, "photo")
    for name, part in (("train", frames[:8]), ("val", frames[8:])):
        write_coco_index(part, rossam.folder / f"{name}.json", rossam.folder / "images")
    sets = [part for key, value in NETWORK.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    named = ["--data", "images", "--device", "cpu"]
    steps = [
        ["train", "--annotations", "train.json", "--val", "val.json", *named, "--views", 8, "--out", "RUN", *sets],
        ["evaluate", "--annotations", "val.json", *named, "--checkpoint", "RUN", "--out", "SCORES"],
        [
            "convert",
            "--annotations",
            "val.json",
            *named,
            "--checkpoint",
            "RUN",
            "--out",
            "MASKS",
            "--format",
            "labelme",
        ],
        ["import-masks", "--conversion", "MASKS", "--format", "labelme", "--out", "corrected.json"],
    ]
    for step in steps:
        status, output = rossam(*step)
        assert status == 0, output
    for file in ("RUN/run.json", "SCORES/index.html", "MASKS/review.html", "corrected.json"):
        assert (rossam.folder / file).is_file()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["fetch"], ["fetch", "--help"], ["fetch", "--check"], ["rows", "table3"]]
)
def test_lists_and_help_work_outside_of_the_checkout(rossam, arguments):
    status, output = rossam(*arguments)
    assert status in (0, 1) and "Traceback" not in output and output.strip(), output


def test_what_the_wheel_lacks_is_said(rossam):
    status, output = rossam("run", "--profile", "smoke")
    assert status == 2 and "error: " in output and "Remedy: " in output, output
