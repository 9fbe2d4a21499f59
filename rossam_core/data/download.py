"""One file from a server or a folder onto the disk: resumed, retried, hashed.

In: addresses of the same file, most wanted first, and what is known of it. Out: the file, whole, or one
`RossamError` that says for every address what happened.

What arrives is kept in `NAME.part` beside the target, so that a killed download goes on where it was. Bytes are
only added to it where they surely continue it: the file's hash is known and settles the matter in the end, or the
server confirms (`If-Range`) that its file is still the one we began. `pooch` has neither resuming nor a limit on
stalls, hence `requests`, on which it stands too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import filelock
import requests
import urllib3
from tqdm.auto import tqdm

from ..errors import ProblemList, RossamError
from ..files import write_text

T = TypeVar("T")
CHUNK = 1 << 20
CRAWL = 100
"""Bytes a second below which a connection counts as stalled."""
LONGEST_PAUSE = 60
"""Seconds; bounds the pauses between attempts, whatever a server's Retry-After asks for."""
WORTH_ANOTHER_TRY = (408, 425, 429)
"""Status codes that may pass, besides 5xx."""


@dataclass(frozen=True)
class Known:
    """What is known of a file before it is fetched; None where nothing trustworthy states it."""

    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def hashed(self) -> bool:
        return bool(self.md5 or self.sha256)

    def mismatch(self, path: Path) -> str | None:
        """How the file differs from what is known, or None. Where a hash is known, the hash alone decides."""
        size = path.stat().st_size
        for algorithm in ("sha256", "md5"):
            expected = getattr(self, algorithm)
            if expected:
                measured = hash_of(path, algorithm)
                return (
                    None if measured == expected else f"{algorithm} is {measured}, expected {expected} ({size:,} bytes)"
                )
        if self.bytes is not None and size != self.bytes:
            return f"holds {size:,} bytes, expected {self.bytes:,}"
        return None


@dataclass(frozen=True)
class Patience:
    """When to try again, and when to stop.

    Attributes:
        attempts: tries of one address that bring nothing new, in a row, before it is given up.
        connect_seconds: time limit for a connection.
        stall_seconds: time without a byte, or at a crawl, after which a connection is dropped and resumed.
        pause_seconds: pause before the second try; doubled before each further one, up to `LONGEST_PAUSE`.
    """

    attempts: int = 5
    connect_seconds: float = 15
    stall_seconds: float = 30
    pause_seconds: float = 1


class _Failure(Exception):
    """An attempt failed; `again` tells whether another may succeed, `after` how long the server asks to wait."""

    def __init__(self, reason: str, again: bool, after: float = 0):
        super().__init__(reason)
        self.again, self.after = again, after


def download(
    urls: Sequence[str],
    target: Path,
    known: Known,
    *,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Fetch one file.

    Args:
        urls: http, https and file addresses of the same file, tried in this order.
        target: where it goes; it appears there only when whole and right.
        say: takes lines for the user: that a server starts over, that a hash is not known.

    Returns:
        The file's sha256. Where no hash is known, it is also written to `TARGET.sha256`, and said.

    Raises:
        RossamError: no address gave the file; what came of each is told. The part that arrived stays, to be
            resumed. Also where another process is fetching the same file, or the disk refuses.
    """
    patience = patience or Patience()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise RossamError(target, "is being fetched by another process", "wait for it, or stop it") from error
    try:
        problems = ProblemList(target.name)
        for url in urls:
            reason = _fetch_from(url, part, known, patience, say)
            if reason is None:
                return _finish(part, target, known, say)
            problems.add(url, reason)
        held = f"; {part.stat().st_size:,} bytes are kept and will be resumed" if part.exists() else ""
        problems.raise_if_any(
            f"check the connection and try again{held}; or fetch the file elsewhere and name its folder with --from"
        )
        raise RossamError(target.name, "has no address", "name a folder or a mirror that holds it with --from")
    except OSError as error:
        raise RossamError(
            part, f"cannot be written: {error.strerror or error}", "free some disk space or set ROSSAM_CACHE elsewhere"
        ) from error
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def read_text(url: str, patience: Patience | None = None) -> str:
    """A small text from a server or a file, with the same retries; `RossamError` where it cannot be had."""
    patience = patience or Patience()

    def attempt() -> str:
        if (path := local_path(url)) is not None:
            return path.read_text(encoding="utf-8")
        with _get(url, {}, patience) as response:
            _check_status(response)
            return b"".join(_pieces(response, patience)).decode("utf-8")

    try:
        return _persist(attempt, patience, lambda: 0)
    except (_Failure, OSError, UnicodeDecodeError) as error:
        raise RossamError(
            url, f"cannot be read ({error})", "check the connection and try again, or use --from"
        ) from error


def local_path(url: str) -> Path | None:
    """The path a `file://` address names; None for any other."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def hash_of(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def side_file(target: Path) -> Path:
    """Where the sha256 measured at the first download is kept, for files whose hash nobody states."""
    return target.with_name(target.name + ".sha256")


def _fetch_from(url: str, part: Path, known: Known, patience: Patience, say: Callable[[str], None]) -> str | None:
    """Bring `part` to the whole file, checked; None, or why this address did not give it."""
    for last_try in (False, True):
        resumed = False

        def attempt() -> None:
            nonlocal resumed
            resumed |= part.exists()
            _transfer(url, part, known, patience, say)

        try:
            if known.bytes is None or _size(part) < known.bytes:
                _persist(attempt, patience, lambda: _size(part))
            else:
                resumed = True  # an earlier run was stopped between the last byte and the check
        except _Failure as failure:
            if not (known.hashed and part.exists() and known.mismatch(part) is None):
                return str(failure)
        mismatch = known.mismatch(part)
        if mismatch is None:
            return None
        _discard(part)
        if last_try or not resumed:
            return mismatch
        say(f"{part.stem}: what was resumed does not fit together ({mismatch}); starting over")
    return None


def _finish(part: Path, target: Path, known: Known, say: Callable[[str], None]) -> str:
    sha256 = known.sha256 or hash_of(part, "sha256")
    os.replace(part, target)
    _discard(part)
    if not known.hashed:
        write_text(side_file(target), f"{sha256}  {target.name}\n")
        say(f"{target.name}: nobody states a hash of this file, so it could not be checked. Its sha256 is")
        say(f"  {sha256}, kept in {side_file(target)}")
    return sha256


def _persist(attempt: Callable[[], T], patience: Patience, progress: Callable[[], int]) -> T:
    """Repeat `attempt` while it may succeed; tries that make progress do not count."""
    failures = 0
    while True:
        before = progress()
        try:
            return attempt()
        except _Failure as failure:
            failures = 1 if progress() > before else failures + 1
            if not failure.again or failures >= patience.attempts:
                raise
            time.sleep(min(max(patience.pause_seconds * 2 ** (failures - 1), failure.after), LONGEST_PAUSE))


def _transfer(url: str, part: Path, known: Known, patience: Patience, say: Callable[[str], None]) -> None:
    """One attempt: add to `part` what is missing of it."""
    if (path := local_path(url)) is not None:
        _copy(path, part)
        return
    validator = _validator_of(part, url)
    if part.exists() and not (known.hashed or validator):
        part.unlink()  # nothing could tell whether the rest would fit
    held = _size(part)
    headers = {"Range": f"bytes={held}-"} if held else {}
    if held and validator:
        headers["If-Range"] = validator
    with _get(url, headers, patience) as response:
        if response.status_code == 416:  # asked for bytes beyond the end
            if response.headers.get("Content-Range", "") == f"bytes */{held}":
                return
            _discard(part)
            raise _Failure("the part held does not fit the server's file", again=True)
        _check_status(response)
        start, total = _extent(response, held)
        if held and not start:
            say(f"{part.stem}: the server does not resume, or its file has changed; starting over")
        _remember(part, url, response)
        _append(response, part, start, total, patience)
    if total is not None and _size(part) < total:
        raise _Failure(f"ends after {_size(part):,} of the {total:,} bytes announced", again=True)


def _append(response: requests.Response, part: Path, start: int, total: int | None, patience: Patience) -> None:
    with (
        open(part, "ab" if start else "wb") as stream,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
    ):
        for piece in _pieces(response, patience):
            stream.write(piece)
            stream.flush()  # a killed process keeps all that has arrived
            bar.update(len(piece))


def _copy(path: Path, part: Path) -> None:
    if not path.is_file():
        raise _Failure("no such file", again=False)
    with (
        open(path, "rb") as source,
        open(part, "wb") as stream,
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
    ):
        while piece := source.read(CHUNK):
            stream.write(piece)
            bar.update(len(piece))


def _get(url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    headers = {"Accept-Encoding": "identity", **headers}  # bytes as they lie there, so that lengths and ranges hold
    try:
        return requests.get(
            url, headers=headers, stream=True, timeout=(patience.connect_seconds, patience.stall_seconds)
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Failure(f"{type(error).__name__}: {error}", again=True) from error
    except requests.RequestException as error:  # a malformed address, endless redirects
        raise _Failure(f"{type(error).__name__}: {error}", again=False) from error


def _pieces(response: requests.Response, patience: Patience) -> Iterator[bytes]:
    """Bytes as they arrive; a connection that breaks, stands still or crawls is a `_Failure`."""
    since, moved = time.monotonic(), 0
    try:
        while piece := response.raw.read1(CHUNK, decode_content=False):
            moved += len(piece)
            yield piece
            if time.monotonic() - since > patience.stall_seconds:
                if moved < CRAWL * patience.stall_seconds:
                    raise _Failure(f"crawls: {moved} bytes in {patience.stall_seconds:g} s", again=True)
                since, moved = time.monotonic(), 0
    except urllib3.exceptions.ReadTimeoutError as error:
        raise _Failure(f"stalls: no byte for {patience.stall_seconds:g} s", again=True) from error
    except urllib3.exceptions.HTTPError as error:
        raise _Failure(f"breaks off ({error})", again=True) from error


def _check_status(response: requests.Response) -> None:
    code = response.status_code
    if code not in (200, 206):
        wait = response.headers.get("Retry-After", "")
        again = code in WORTH_ANOTHER_TRY or code >= 500
        raise _Failure(f"answers {code} {response.reason}", again, float(wait) if wait.isdigit() else 0)


def _extent(response: requests.Response, held: int) -> tuple[int, int | None]:
    """First byte of the answer and length of the whole file, None where it is not told."""
    if response.status_code == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        if unit != "bytes" or span.partition("-")[0] != str(held):
            raise _Failure(f"was asked for bytes from {held:,} on and answers {unit} {rest}", again=False)
        return held, int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remember(part: Path, url: str, response: requests.Response) -> None:
    """Note which file `part` is the beginning of, in the server's words."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    write_text(_note_of(part), json.dumps({"url": url, "validator": validator}))


def _validator_of(part: Path, url: str) -> str | None:
    try:
        note = json.loads(_note_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note.get("validator") if isinstance(note, dict) and note.get("url") == url else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)
