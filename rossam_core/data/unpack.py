"""Archives onto the disk, with every member looked at before the first is written.

In: a zip or tar file. Out: its files below one folder. Members that would land outside it, and those that are
neither file nor folder (links, devices), are refused, all of them named, and nothing is written.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from ..errors import ProblemList, RossamError
from ..progress import track

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FOREIGN = (".rar", ".7z", ".z01", ".zip.001")
"""Archives that Python's own library does not open."""
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What Python's readers raise for damaged, truncated and encrypted archives."""
CLUTTER = ("__MACOSX", ".DS_Store")
"""What one system adds to archives; left out."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: str
    """`file`, `folder`, or what else it is."""
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    """Whether `unpack` opens files of this name."""
    return name.lower().endswith(ARCHIVES)


def unpack(archive: Path, folder: Path) -> None:
    """Write an archive's files below `folder`, without their owners and permissions.

    Raises:
        RossamError: the archive is damaged, holds unsafe members, or does not fit on the disk. Unless the damage
            shows only in the middle of a member, nothing has been written then.
    """
    opened: zipfile.ZipFile | tarfile.TarFile
    try:
        with zipfile.ZipFile(archive) if archive.suffix.lower() == ".zip" else tarfile.open(archive) as opened:
            members = _zip_members(opened) if isinstance(opened, zipfile.ZipFile) else _tar_members(opened)
            members = [m for m in members if not set(PurePosixPath(m.name).parts) & set(CLUTTER)]
            _check_members(archive, members)
            folder.mkdir(parents=True, exist_ok=True)
            check_space(folder, sum(member.size for member in members), f"unpack {archive.name}")
            for member in track(members, desc=f"unpack {archive.name}"):
                _write(member, folder / member.name)
    except DAMAGE as error:
        raise RossamError(
            archive, f"cannot be unpacked ({type(error).__name__}: {error})", "delete it and fetch it again"
        ) from error


def check_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise `RossamError` unless the disk `folder` is, or will be, on has `needed` bytes free."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise RossamError(
            folder,
            f"{needed:,} bytes are needed to {purpose}, {free:,} are free there",
            "free some disk space, or let the environment variable ROSSAM_CACHE name a folder on another disk",
        )


def _zip_members(opened: zipfile.ZipFile) -> list[_Member]:
    return [
        _Member(info.filename, info.file_size, _zip_kind(info), lambda info=info: opened.open(info))
        for info in opened.infolist()
    ]


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive's maker kept no such thing
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "link" if mode == stat.S_IFLNK else "device"
    return "folder" if info.is_dir() else "file"


def _tar_members(opened: tarfile.TarFile) -> list[_Member]:
    members = opened.getmembers()
    while opened.fileobj.read(1 << 20):
        pass  # to the compressor's checksum at the very end, which tarfile itself never reads
    return [
        _Member(info.name, info.size, _tar_kind(info), lambda info=info: opened.extractfile(info)) for info in members
    ]


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return f"link to {info.linkname}"
    return "folder" if info.isdir() else "file" if info.isfile() else "device"


def _check_members(archive: Path, members: list[_Member]) -> None:
    problems = ProblemList(archive)
    for member in members:
        windows = PureWindowsPath(member.name)  # knows both separators, and drives
        if windows.is_absolute() or windows.drive or member.name.startswith(("/", "\\")):
            problems.add(repr(member.name), "an absolute path")
        elif ".." in windows.parts:
            problems.add(repr(member.name), "leads out of the folder it is unpacked to")
        elif "\0" in member.name or (member.kind == "file" and windows.name == ""):
            problems.add(repr(member.name), "is no file name")
        elif member.kind not in ("file", "folder"):
            problems.add(repr(member.name), f"is a {member.kind}; only files and folders are unpacked")
    problems.raise_if_any("nothing was unpacked; do not use this file, and fetch it from its authors")


def _write(member: _Member, path: Path) -> None:
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(path, "wb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
        if stream.tell() != member.size:
            raise EOFError(f"{member.name} ends after {stream.tell():,} of {member.size:,} bytes")
