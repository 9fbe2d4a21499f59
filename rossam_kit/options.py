"""Options that several commands share, and how their texts become settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import typer
import yaml

from rossam_core.errors import RossamError
from rossam_core.settings import Method
from rossam_kit.config import BoxConvention
from rossam_kit.datasets.box_conventions import CONVENTIONS

WHOLE = ("model.architecture", "model.sam3_architecture")
"""Keys of the profile whose value is a group of keys that is replaced as a whole."""
AnyMethod = Literal[Method, "box", "ellipse", "grabcut"]

Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        default_factory=list,
        show_default=False,
        help="override a key of the profile, e.g. inference.rate=4 (the value is YAML); may be repeated",
    ),
]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, mps; default: the best there is")]
Source = Annotated[
    str | None,
    typer.Option(metavar="READER", help="reader of the data: coco, nwpu-vhr10, isaid, sat-mtb, synthetic, …"),
]
Data = Annotated[str | None, typer.Option(metavar="DIR", help="folder of the data; with --annotations, of its images")]
Annotations = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a COCO file anywhere; its images are in --data, else beside it")
]
Convention = Annotated[
    BoxConvention | None,
    typer.Option(
        metavar="NAME",
        help=f"what bbox of a COCO file holds: {', '.join(CONVENTIONS)}; default: xywh, refused if it looks otherwise",
    ),
]
KeepCrowd = Annotated[bool, typer.Option("--keep-crowd", help="take iscrowd annotations of a COCO file as objects")]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="leave out annotations of a COCO file that cannot be used; each is listed with its reason"
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", help="bands shown as red, green, blue (or one as gray), from 1; default: the first three"
    ),
]
Stretch = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="full (default: the bit depth's range), percentiles, percentiles:LO,HI, or LO,HI; one for all images",
    ),
]
Limit = Annotated[int | None, typer.Option(metavar="N", help="only the first N frames")]
Checkpoint = Annotated[
    str | None, typer.Option(metavar="PATH", help="folder of a fine-tuning run (rossam train), or a weights file")
]


class Options(SimpleNamespace):
    """Values of a command's options; those that the command does not have are None."""

    def __getattr__(self, name: str) -> None:
        return None


def example(*lines: str) -> str:
    """The epilog of a command's help: its examples, one per line, not wrapped."""
    return "\b\n" + "\n".join(["Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as profile overrides, a group of keys as its single keys; paths become absolute.

    Raises:
        RossamError: no `=`, or a value that is not YAML.
    """
    values = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise RossamError(f"--set {pair}", "has no '='", "write KEY=VALUE, e.g. --set inference.rate=4")
        try:
            values |= {key: _anchored(key, leaf) for key, leaf in _leaves(key, yaml.safe_load(value))}
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
            raise RossamError(f"--set {pair}", f"its value is not valid YAML ({error})", "quote it") from error
    return values


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a group of keys; an empty group is a value."""
    if isinstance(value, dict) and value and key not in WHOLE:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def from_caller(path: str | Path) -> Path:
    """An absolute path; relative ones start where the user stood when calling run_all.sh."""
    return (Path(os.environ.get("ROSSAM_CALLED_FROM", ".")) / Path(path).expanduser()).resolve()


def _anchored(key: str, value: Any) -> Any:
    """The value of a profile key, absolute where it is a path: notebooks run in a folder of their own."""
    is_path = key == "model.checkpoint" or (key.split(".")[0] in ("data", "datasets") and key.endswith(".root"))
    return str(from_caller(value)) if is_path and isinstance(value, str) and value != "default" else value
