"""Zip and tar archives onto the disk, with every member checked before the first is written.

Refused, with nothing written: members that would land outside the folder, links and devices, archives that unpack to
more than the larger of `MIN_LIMIT` bytes and `MAX_RATIO` times their own size, and what does not fit on the disk.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from rossam_core.errors import ProblemList, RossamError
from rossam_kit.datasets.reading import is_litter
from rossam_kit.progress import track

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNSUPPORTED = (".rar", ".7z", ".z01", ".zip.001")
"""Archives that Python's own library does not open."""
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
"""What Python's readers raise for damaged, truncated and encrypted archives."""
MIN_LIMIT, MAX_RATIO = 1_000_000_000, 100
"""Images hardly compress, annotations in text at most some 20 times; deflate's extreme is 1,000 times."""
HEADER = 512
"""Bytes that each member counts besides its own, so that the number of files is limited, too."""


def is_archive(name: str) -> bool:
    """Whether `unpack` opens files of this name."""
    return name.lower().endswith(ARCHIVES)


Archive = zipfile.ZipFile | tarfile.TarFile
Member = zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path) -> None:
    """Write an archive's files below `folder`, without their owners.

    Raises:
        RossamError: the archive is damaged, holds unsafe members, or is too large once unpacked. Unless the damage
            shows only in the middle of a member, nothing has been written then.
    """
    opened: Archive
    try:
        with zipfile.ZipFile(archive) if archive.suffix.lower() == ".zip" else tarfile.open(archive) as opened:
            members, size = _checked_members(archive, opened)
            check_space(folder, size, f"unpack {archive.name}")
            options = {"filter": "data"} if isinstance(opened, tarfile.TarFile) else {}
            for member in track(members, desc=f"unpack {archive.name}"):
                opened.extract(member, folder, **options)
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


def _checked_members(archive: Path, opened: Archive) -> tuple[list[Member], int]:
    """All members but litter, and their bytes; unsafe members and too many bytes raise `RossamError`."""
    limit, total = max(MIN_LIMIT, MAX_RATIO * archive.stat().st_size), 0
    members, problems = [], ProblemList(archive)
    for member in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        is_tar = isinstance(member, tarfile.TarInfo)
        name = member.name if is_tar else member.filename
        total += HEADER + (member.size if is_tar else member.file_size)
        if total > limit:
            raise RossamError(
                archive,
                f"unpacks to more than {limit:,} bytes, the limit for its size of {archive.stat().st_size:,}",
                "nothing was unpacked; check where the file comes from, and unpack it by hand if you trust it",
            )
        problems.extend((repr(name), reason) for reason in _reasons_against(member, name))
        if not any(map(is_litter, PurePosixPath(name).parts)):
            members.append(member)
    while isinstance(opened, tarfile.TarFile) and opened.fileobj.read(1 << 20):
        pass  # to the compressor's checksum at the very end, which tarfile itself never reads
    problems.raise_if_any("nothing was unpacked; do not use this file, and fetch it from its authors")
    return members, total


def _reasons_against(member: Member, name: str) -> Iterator[str]:
    path = PureWindowsPath(name)  # splits at both separators, and recognises drives
    if path.is_absolute() or path.drive or name.startswith(("/", "\\")):
        yield "is an absolute path"
    elif ".." in path.parts:
        yield "leads out of the folder it is unpacked to"
    elif "\0" in name:
        yield "is no file name"
    elif not _is_plain(member):
        yield "is a link or device; only files and folders are unpacked"


def _is_plain(member: Member) -> bool:
    """Whether a member is a file or folder."""
    if isinstance(member, tarfile.TarInfo):
        return member.isfile() or member.isdir()
    return stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)  # 0: no mode was stored
