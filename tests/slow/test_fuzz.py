"""Every reader, fed damaged files for a while: a clear error or a result, and nothing else.

`ROSSAM_FUZZ_SECONDS` is the time of all readers together (default 600), `ROSSAM_FUZZ_SEED` that of the damage. Where
atheris is installed, it chooses the damage by what code it reaches (`python -m tests.slow.test_fuzz NAME SECONDS`).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from rossam_core.errors import RossamError

from .targets import SUFFIXES, TARGETS, Target, quiet

SECONDS, SEED = float(os.environ.get("ROSSAM_FUZZ_SECONDS", 600)), int(os.environ.get("ROSSAM_FUZZ_SEED", 0))
TOKENS = [b"NaN", b"-1", b"1e999", b"99999999999999999999", b"null", b"[]", b"{}", b'""', b"true", b"0", b"1.5", b"-0"]
TOKENS += [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    b"\x7f\xff\xff\xff",
    b"<a>",
    b"&lt;",
    b"..",
    b"/",
    b"\r\n",
    b"[[",
    b"=",
]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """The file's bytes with one to four changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at, length = draw.randrange(len(data) + 1), draw.choice((1, 1, 2, 4, 8, 40))
        kind = draw.randrange(7)
        if kind == 0:
            data = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :] if at < len(data) else data
        elif kind == 1:
            data = data[:at] + draw.randbytes(length) + data[at + length :]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[:at] + data[at : at + length] * draw.choice((2, 3, 50)) + data[at + length :]
        elif kind == 4:
            data = data[:at] + draw.choice(TOKENS) + data[at:]
        elif kind == 5 and (values := list(re.finditer(rb'-?\d+(\.\d+)?|"[^"]*"|\w+', data[:200_000]))):
            value = draw.choice(values)
            data = data[: value.start()] + draw.choice(TOKENS) + data[value.end() :]
        elif kind == 6 and draw.random() < 0.2:
            data = data[:at]
    return data


def files_of(folder: Path, target: Target) -> list[Path]:
    places = [path for match in folder.glob(target.files) for path in (match, *match.rglob("*"))]
    return sorted({path for path in places if path.is_file()})


def place_of(error: BaseException) -> str:
    """Type, and the innermost place in the program: what tells one defect from another."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/rossam_" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"


class Findings(dict):
    """Place of an error → the error and the damaged file's name and bytes, the smallest one."""

    def __init__(self, target: Target, folder: Path):
        super().__init__()
        self.target, self.folder, self.inputs = target, folder, 0
        (folder / "data").mkdir()
        target.make(folder / "data")
        quiet(target.read, folder / "data")
        self.files = files_of(folder / "data", target)
        self.intact = {path: path.read_bytes() for path in self.files}

    def check(self, path: Path, data: bytes) -> None:
        self.inputs += 1
        path.write_bytes(data)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        try:
            quiet(self.target.read, self.folder / "data")
        except RossamError:
            pass
        except Exception as error:
            place = place_of(error)
            if place not in self or len(self[place][2]) > len(data):
                self[place] = (error, path.relative_to(self.folder / "data").as_posix(), data)
        finally:
            path.write_bytes(self.intact[path])


def mutations(findings: Findings, seconds: float, seed: int) -> None:
    """Random changes, a fixed sequence for a seed."""
    draw, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        path = draw.choice(findings.files)
        findings.check(path, damaged(findings.intact[path], draw))


def report(name: str, findings: Findings) -> Iterator[str]:
    yield f"{name}: {findings.inputs} inputs, {len(findings)} defects"
    for place, (error, file, data) in findings.items():
        yield f"  {place}: {error!r:.200}\n    {file} ({len(data)} bytes): {data[:300]!r}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_a_clear_error_or_a_result(tmp_path, name):
    findings = Findings(TARGETS[name], tmp_path)
    mutations(findings, SECONDS / len(TARGETS), SEED)
    print("\n".join(report(name, findings)))
    assert not findings, "\n".join(report(name, findings))


def main(name: str, seconds: str) -> None:
    """Coverage-guided, by atheris; its corpus is the intact files."""
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        findings, corpus = Findings(TARGETS[name], Path(folder)), Path(folder) / "corpus"
        corpus.mkdir()
        for number, path in enumerate(findings.files):
            if path.suffix in SUFFIXES or number < 3:
                (corpus / str(number)).write_bytes(bytes([number % 256]) + findings.intact[path])
        end = time.monotonic() + float(seconds)

        def once(data: bytes) -> None:
            if data:
                findings.check(findings.files[data[0] % len(findings.files)], data[1:])
            if time.monotonic() > end:
                print("\n".join(report(name, findings)), flush=True)
                os._exit(1 if findings else 0)

        for module in [
            m for key, m in sys.modules.items() if key.startswith("rossam_kit.") or key == "rossam_core.masks"
        ]:
            for value in list(vars(module).values()):
                if (
                    callable(value)
                    and getattr(value, "__module__", None) == module.__name__
                    and hasattr(value, "__code__")
                ):
                    value.__code__ = atheris.instrument_func(value).__code__
        atheris.Setup(
            [sys.argv[0], str(corpus), "-timeout=60", "-rss_limit_mb=6000", "-max_len=40000", "-verbosity=0"], once
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
