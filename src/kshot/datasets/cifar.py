"""CIFAR-100 (Krizhevsky 2009) in the splits of CIFAR-FS and of FC100."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.datasets.download import fetch
from kshot.datasets.images import ImageFormat
from kshot.datasets.raw import class_lists, copy_mark, locate, raw_files
from kshot.datasets.store import Item, Store, image_item, open_store
from kshot.errors import DataError

CLASSES = 100
EXAMPLES = 600
SIDE = 32

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
CHECKSUM = "md5:03b5dce01913d631647c71ecec9e9cb8"
"""Of the publisher's binary version: his Python version is a pickle."""

RECORD = 2 + 3 * SIDE * SIDE
"""Bytes: superclass, class, then the image, channels first."""

MEMBERS = {"train.bin": 50_000 * RECORD, "test.bin": 10_000 * RECORD}
"""Of the publisher's archive: the bytes of each."""

NAMES = "fine_label_names.txt"

COPIES = ("cifar100.zip", "cifar100/data", "cifar-100-binary.tar.gz")


def load_cifar_fs(*, path: str | None = None) -> Dataset:
    """CIFAR-FS (Bertinetto et al. 2019): 64/16/20 random classes; `(3, 32, 32)` bytes.

    Args:
        path: a folder with `cifar100.zip` (classes as folders of PNG files), the same unpacked, or
            the publisher's `cifar-100-binary.tar.gz`; by default `KSHOT_DATA/cifar-fs`, else the
            latter is downloaded (161 MiB).

    Raises:
        DataError: if a copy is damaged or incomplete, or cannot be downloaded.
    """
    splits = _store(path).splits("cifar_fs", class_lists("cifar-fs"), whole=True)
    return Dataset("cifar_fs", splits, cifar_fs.about, cifar_fs.source, cifar_fs.licence)


def load_fc100(*, path: str | None = None) -> Dataset:
    """FC100 (Oreshkin et al. 2018): 60/20/20 classes, split by superclass; `(3, 32, 32)` bytes.

    Args:
        path: as for `cifar_fs`, whose files it shares.

    Raises:
        DataError: if a copy is damaged or incomplete, or cannot be downloaded.
    """
    splits = _store(path).splits("fc100", class_lists("fc100"), whole=True)
    return Dataset("fc100", splits, fc100.about, fc100.source, fc100.licence)


def _store(path: str | None) -> Store:
    form = ImageFormat(SIDE)
    copy = _copy(path)
    items = partial(_items, copy, form)
    return open_store("cifar100", copy_mark(copy), form, items, by_content=True)


def _copy(path: str | None) -> Path | None:
    return locate(path, *(f"cifar-fs/{copy}" for copy in COPIES), *COPIES)


@contextmanager
def _items(copy: Path | None, form: ImageFormat) -> Iterator[Sequence[Item]]:
    """All images, class after class, after a check of their number."""
    source = copy or fetch([URL], CHECKSUM, place="cifar-fs in the folder that KSHOT_DATA names")
    if source.suffix == ".gz":
        yield _whole(source, _records(source))
        return
    with raw_files(source) as files:
        images = [file for file in files if file.path.lower().endswith(".png")]
        yield _whole(source, [image_item(file.folder, file, form) for file in images])


def _whole(source: Path, items: list[Item]) -> list[Item]:
    counts = Counter(item.label for item in items)
    known = {label for split in class_lists("cifar-fs").values() for label in split}
    if counts.keys() != known or set(counts.values()) != {EXAMPLES}:
        raise DataError(
            f"{source} has {len(items)} images of {len(counts)} classes, but CIFAR-100 has "
            f"{CLASSES} classes of {EXAMPLES}: get it again."
        )
    return sorted(items, key=lambda item: item.label)


def _records(archive: Path) -> list[Item]:
    """The images of the publisher's binary files, which are read from the archive in memory."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                right = member.size == MEMBERS.get(name) or (name == NAMES and member.size < 2**16)
                if right and member.isfile() and (file := tar.extractfile(member)):
                    found[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive} is damaged or incomplete ({error}): remove it and get it again."
        ) from error
    if missing := {*MEMBERS, NAMES} - found.keys():
        raise DataError(
            f"{archive} has no {', '.join(sorted(missing))} of the right size: remove it and get "
            f"{URL} again."
        )
    names = dict(enumerate(found[NAMES].decode("ascii", "replace").split()))
    return [
        Item(names.get(row[1], "?"), f"{part} {i}", partial(row[2:].reshape, 3, SIDE, SIDE))
        for part in MEMBERS
        for i, row in enumerate(np.frombuffer(found[part], np.uint8).reshape(-1, RECORD))
    ]


cifar_fs = Entry(
    load_cifar_fs,
    about="CIFAR-100's photos, classes split at random, 32x32 colour",
    size="100 classes (64/16/20), 600 examples each",
    splits=("train", "val", "test"),
    source="cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009); split by Bertinetto et al. 2019",
    licence="none stated; research use",
    present=lambda: _copy(None) is not None,
    otherwise="downloaded on first use",
)

fc100 = Entry(
    load_fc100,
    about="CIFAR-100's photos, classes split by superclass, 32x32 colour",
    size="100 classes (60/20/20), 600 examples each",
    splits=("train", "val", "test"),
    source="cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009); split by Oreshkin et al. 2018",
    licence="none stated; research use",
    present=lambda: _copy(None) is not None,
    otherwise="downloaded on first use",
)
