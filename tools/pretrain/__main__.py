"""Command line: `python -m tools.pretrain RUN_DIR [--photos DIR] [--set KEY=VALUE …]`."""

import argparse
from pathlib import Path

import yaml

from rossam_core.errors import RossamError
from tools.pretrain.train import pretrain


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pretrain", description="Train a tiny prior; resumes a run.")
    parser.add_argument("run_dir", type=Path, help="folder of checkpoint, log and weights; an unfinished run continues")
    parser.add_argument("--photos", metavar="DIR", help="folder of photographs that serve as surfaces")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of config.py")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    options = parser.parse_args()
    settings = {"photos": options.photos} if options.photos else {}
    try:
        for pair in options.set:
            key, sign, value = pair.partition("=")
            if not sign:
                raise RossamError(f"--set {pair}", "has no '='", "write KEY=VALUE, e.g. --set sam_samples=6400")
            settings[key] = yaml.safe_load(value)
        pretrain(settings, options.run_dir, options.device)
    except RossamError as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
