"""Raw files as their publishers or users lay them out: found, listed and read, never trusted."""

from __future__ import annotations

import csv
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kshot.errors import DataError

MAX_FILE = 64 * 2**20
"""Bytes of one file: more is no photo, and may be an archive that unpacks without end."""

MAX_RATIO = 100
"""Of unpacked to packed size: images hardly shrink, bombs do."""

ENCRYPTED = 0x1
"""The bit among the flags of an archive's member."""


class UnreadableError(Exception):
    """A file that is no usable image; the message says why."""


class RawFile(NamedTuple):
    """A file in a folder or an archive.

    Attributes:
        path: inside the folder or archive, with `/`.
        mark: its size and time of change, or size and CRC in an archive: other where it changed.
        read: gives its bytes, or raises UnreadableError.
    """

    path: str
    mark: tuple[int, int]
    read: Callable[[], bytes]

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in; empty at the top."""
        return PurePosixPath(self.path).parent.name


def class_lists(name: str) -> dict[str, list[str]]:
    """The published class lists of a benchmark, by split."""
    folder = files("kshot") / "datasets" / "class_lists" / name
    return {
        split: (folder / f"{split}.txt").read_text(encoding="utf-8").split()
        for split in ("train", "val", "test")
    }


def locate(given: str | None, *candidates: str) -> Path | None:
    """The first candidate with files below the given path or, if none is given, `KSHOT_DATA`.

    Raises:
        DataError: if the given path has none of them, or `KSHOT_DATA` names no folder.
    """
    if not (name := given or os.environ.get("KSHOT_DATA")):
        return None
    root = Path(name).expanduser()
    if not given and not root.is_dir():
        raise DataError(f"KSHOT_DATA names {root}, which is no folder: correct it, or unset it.")
    if root.is_file():
        raise DataError(f"{root} is a file: give the folder in which it lies.")
    found = next((root / place for place in candidates if _has_files(root / place)), None)
    if given and found is None:
        lacks = f"none of {', '.join(candidates)}" if root.exists() else "nothing"
        raise DataError(f"there is {lacks} at {root}: check the path, or leave it out.")
    return found


def copy_mark(copy: Path | None) -> tuple[str, int, int] | None:
    """What tells one copy of published files from another; None for those to be downloaded."""
    return None if copy is None else (str(copy.resolve()), *_mark(str(copy)))


def _has_files(path: Path) -> bool:
    return path.is_file() or any(_walk(path))


def read_table(file: RawFile, *columns: str, delimiter: str = ",") -> list[tuple[str, ...]]:
    """The values of these columns in a CSV file whose first line names them.

    Raises:
        DataError: if it is no such file, or a value is missing.
    """
    try:
        text = file.read().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [tuple(row.get(column) or "" for column in columns) for row in reader]
    except (UnreadableError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file.path} cannot be read as a CSV file: {error}.") from error
    if lacking := set(columns) - set(reader.fieldnames or ()):
        raise DataError(
            f"{file.path} has no column {', '.join(sorted(lacking))} in its first line: "
            f"{', '.join(reader.fieldnames or ()) or 'it is empty'}"
        )
    if gap := next((number for number, row in enumerate(rows, 2) if "" in row), None):
        raise DataError(f"{file.path} lacks a value in row {gap}: each row needs {columns}.")
    return rows


@contextmanager
def raw_files(path: Path) -> Iterator[list[RawFile]]:
    """The files of a folder or zip archive but hidden ones, by path; readable within the block.

    Raises:
        DataError: if there is nothing, and for an archive that is damaged or encrypted, that
            unpacks to far more than its size, or that has members outside its folder.
    """
    if not path.exists():
        raise DataError(f"there is nothing at {path}: check the path.")
    if path.is_dir():
        yield _in_order(_walk(path))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} is no zip archive, or damaged or incomplete ({error}): give a folder, or get "
            "the archive again."
        ) from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check(path, infos)
        yield _in_order(
            RawFile(i.filename, (i.file_size, i.CRC), partial(_read_member, archive, i.filename))
            for i in infos
            if not any(_hidden(part) for part in i.filename.split("/"))
        )


def _in_order(found: Iterable[RawFile]) -> list[RawFile]:
    # By folder, then name, so that an archive and a folder agree where `a-b` stands beside `a`.
    return sorted(found, key=lambda file: file.path.split("/"))


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _walk(top: Path) -> Iterator[RawFile]:
    """The files below, links followed, but not those that lead back up."""
    for root, folders, names in os.walk(top, followlinks=True):
        here = Path(root)
        folders[:] = [
            name
            for name in folders
            if not _hidden(name)
            and not (
                (here / name).is_symlink()
                and here.resolve().is_relative_to((here / name).resolve())
            )
        ]
        inside = "" if here == top else f"{here.relative_to(top).as_posix()}/"
        for name in names:
            if not _hidden(name):
                # A name that is no UTF-8 could be neither printed nor recorded.
                text = os.fsencode(inside + name).decode("utf-8", "backslashreplace")
                yield RawFile(text, _mark(f"{root}/{name}"), partial(_read, root, name))


def _mark(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)  # noqa: PTH116 (a Path for each of a million files takes its time)
    except OSError:  # a link to nothing, which the reader reports
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _read(folder: str, name: str) -> bytes:
    file = Path(folder, name)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a regular file")
        if status.st_size > MAX_FILE:
            raise UnreadableError(f"larger than {MAX_FILE >> 20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{archive.filename}: its member {name} is damaged ({error}): remove the archive and "
            "get it again."
        ) from error


def _check(path: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    for info in infos:
        if info.flag_bits & ENCRYPTED:
            raise DataError(
                f"{path} is encrypted: unpack it with its password and give the folder instead."
            )
        parts = PurePosixPath(info.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(
                f"{path} has the member {info.filename!r}, which would land outside its folder: "
                "such an archive is not read; get it from its publisher."
            )
        if info.file_size > MAX_FILE:
            raise DataError(
                f"{path}: its member {info.filename!r} unpacks to {info.file_size >> 20} MiB, more "
                f"than the {MAX_FILE >> 20} MiB allowed for a file: get it from its publisher."
            )
    packed = path.stat().st_size
    if (total := sum(info.file_size for info in infos)) > MAX_RATIO * packed + 2**20:
        raise DataError(
            f"{path} unpacks to {total / packed:.0f} times its size, as no archive of images does: "
            "it is not read; get it from its publisher."
        )
