"""Raw files as their publishers or users lay them out: found, listed and read, never trusted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kshot.errors import DataError

MAX_FILE = 64 * 2**20
"""Bytes of one file: more is no photo, and may be an archive that unpacks without end."""

MAX_RATIO = 100
"""Of unpacked to packed size: images hardly shrink, bombs do."""


class RawFile(NamedTuple):
    """A file in a folder or an archive.

    Attributes:
        path: inside the folder or archive, with `/`.
        read: gives its bytes.
    """

    path: str
    read: Callable[[], bytes]


def class_lists(name: str) -> dict[str, list[str]]:
    """The published class lists of a benchmark, by split."""
    folder = files("kshot") / "datasets" / "class_lists" / name
    return {
        split: (folder / f"{split}.txt").read_text(encoding="utf-8").split()
        for split in ("train", "val", "test")
    }


def locate(given: str | None, *candidates: str) -> Path | None:
    """The first candidate that exists below the given path or, if none is given, `KSHOT_DATA`.

    Raises:
        DataError: if the given path does not exist.
    """
    root = given or os.environ.get("KSHOT_DATA")
    if root is None:
        return None
    if given is not None and not Path(given).exists():
        raise DataError(f"there is nothing at {given}: check the path.")
    found = (Path(root) / candidate for candidate in candidates)
    return next((path for path in found if path.exists()), None)


@contextmanager
def raw_files(path: Path) -> Iterator[list[RawFile]]:
    """The files of a folder or zip archive, sorted by path; readable within the block.

    Raises:
        DataError: for an archive that is damaged, that unpacks to far more than its size, or that
            has members outside its folder.
    """
    if path.is_dir():
        yield [RawFile(p.relative_to(path).as_posix(), _reader(p)) for p in _walk(path)]
        return
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check(path, infos)
            names = sorted(info.filename for info in infos)
            yield [RawFile(name, _member_reader(path, archive, name)) for name in names]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{path} is damaged or incomplete ({error}): remove it and get it again."
        ) from error


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if path.stat().st_size > MAX_FILE:
            raise DataError(f"{path} is larger than {MAX_FILE >> 20} MiB, too large for an image.")
        return path.read_bytes()

    return read


def _member_reader(path: Path, archive: zipfile.ZipFile, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
            raise DataError(
                f"{path}: its member {name} is damaged ({error}): remove the archive and get it "
                "again."
            ) from error

    return read


def _check(path: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    for info in infos:
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
    packed = max(1, sum(info.compress_size for info in infos))
    if (total := sum(info.file_size for info in infos)) > MAX_RATIO * packed + 2**20:
        raise DataError(
            f"{path} unpacks to {total / packed:.0f} times its size, as no archive of images does: "
            "it is not read; get it from its publisher."
        )
