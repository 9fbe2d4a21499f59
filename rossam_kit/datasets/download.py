"""One file from a server or a folder, through pooch, which checks its hash and gives it its name only then.

pooch itself does not resume. The downloader here, plugged into it, collects a file in `NAME.part` beside the target
and continues there after an error or in a later run; the hash decides in the end whether the pieces fit together.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pooch
import requests
import urllib3
from tqdm.auto import tqdm

from rossam_core.errors import ProblemList

ATTEMPTS = 5
"""Attempts in a row that bring nothing new, after which an address is given up."""
CONNECT_SECONDS, STALL_SECONDS = 15.0, 30.0
"""Time limits for a connection, and for a connection without a byte."""
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0
"""Pause before the second attempt, doubled before each further one up to the maximum."""
RETRIED_STATUS = (408, 425, 429)
"""Status codes worth another attempt, besides 5xx."""
pooch.get_logger().setLevel("WARNING")  # `fetch` prints what is fetched
RETRIED_ERRORS = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def download(urls: Sequence[str], target: Path, known_hash: str | None) -> Path:
    """Fetch one file to `target`, unless it is there with the right hash; returns `target`.

    Args:
        urls: http, https and file addresses of the same file, tried in this order.
        known_hash: `sha256:…` or `md5:…`; None: not checked.

    Raises:
        RossamError: no address gave the file, with the reason for each. What has arrived stays.
        OSError: the disk refuses.
    """
    problems = ProblemList(target.name)
    for url in urls:
        reason = _retrieve(url, target, known_hash)
        if reason is None:
            return target
        problems.add(url, reason)
    problems.raise_if_any(
        "check the connection and try again, which resumes; or fetch the file elsewhere and name its folder with --from"
    )
    return target


def local_path(url: str) -> Path | None:
    """The path a `file://` address names; None for any other."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that collects the file in `part` and resumes it.

    Attributes:
        resumed: whether the file was put together from several transfers.
    """

    def __init__(self, part: Path):
        self.part, self.resumed = part, False

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Write what `url` holds to `output_file`; raises `requests.RequestException` or `urllib3`'s `HTTPError`."""
        if (path := local_path(url)) is not None:
            if not path.is_file():
                raise requests.exceptions.InvalidURL("no such file")
            shutil.copyfile(path, output_file)
            return
        failures = 0
        while True:
            held = _size(self.part)
            self.resumed |= held > 0
            try:
                self._transfer(url, held)
                break
            except RETRIED_ERRORS:
                failures = 1 if _size(self.part) > held else failures + 1
                if failures >= ATTEMPTS:
                    raise
                time.sleep(min(PAUSE_SECONDS * 2 ** (failures - 1), MAX_PAUSE_SECONDS))
        os.replace(self.part, output_file)

    def _transfer(self, url: str, held: int) -> None:
        """One request for the bytes from `held` on."""
        headers = {"Accept-Encoding": "identity"}  # so that lengths and ranges count the file's own bytes
        if held:
            headers["Range"] = f"bytes={held}-"
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS)) as response:
            code, span = response.status_code, response.headers.get("Content-Range", "")
            if code == 416:  # no bytes beyond those held: the hash decides whether they are the file
                return
            if code in RETRIED_STATUS or code >= 500:
                raise requests.ConnectionError(f"the server answers {code} {response.reason}")
            response.raise_for_status()
            if code == 206 and not span.startswith(f"bytes {held}-"):
                self.part.unlink()
                raise requests.exceptions.InvalidHeader(f"bytes from {held} on were requested, {span!r} is sent")
            if held and code != 206:
                print(f"{self.part.stem}: the server does not resume; starting over")
                held = 0
            length = response.headers.get("Content-Length", "")
            total = held + int(length) if length.isdigit() else None
            self._append(response, held, total)
        if total is not None and _size(self.part) < total:
            raise requests.ConnectionError(f"ends after {_size(self.part):,} of {total:,} bytes")

    def _append(self, response: requests.Response, held: int, total: int | None) -> None:
        with (
            open(self.part, "ab" if held else "wb") as stream,
            tqdm(total=total, initial=held, unit="B", unit_scale=True, desc=self.part.stem, disable=None) as bar,
        ):
            while piece := response.raw.read1(1 << 20, decode_content=False):
                stream.write(piece)
                stream.flush()  # a killed process keeps what has arrived
                bar.update(len(piece))


def _retrieve(url: str, target: Path, known_hash: str | None) -> str | None:
    """None where the file is there now, else why this address did not give it."""
    reason = None
    for _ in range(2):
        downloader = ResumingDownloader(target.with_name(target.name + ".part"))
        try:
            pooch.retrieve(url, known_hash, target.name, target.parent, downloader=downloader)
            return None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return f"{type(error).__name__}: {error}"
        except ValueError as error:  # pooch found another hash and removed the file
            reason = str(error)
        if not downloader.resumed:
            break
        print(f"{target.name}: the resumed download has a wrong hash; starting over")
    return reason


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
