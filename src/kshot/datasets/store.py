"""Images in a memory-mapped file: decoded once, streamed, then read by index without Python."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from kshot.datasets.images import ImageFormat, Pixels
from kshot.datasets.raw import RawFile, UnreadableError
from kshot.datasets.sources import Split, images_to_float
from kshot.errors import DataError
from kshot.files import cache_folder, cannot_write

VERSION = 2
"""Of the cached files; raised whenever the same sources would give other ones."""

ABANDONED = 600
"""Seconds without a byte written after which a half-made store is one that was killed."""

LISTED = 10
"""Files that an error names, at most."""


class Item(NamedTuple):
    """An image to be stored.

    Attributes:
        label: its class.
        name: for messages.
        load: decodes it, or raises UnreadableError.
    """

    label: str
    name: str
    load: Callable[[], Pixels]


def image_item(label: str, file: RawFile, form: ImageFormat) -> Item:
    """The item of an image file."""
    return Item(label, file.path, partial(_decode, file, form))


def _decode(file: RawFile, form: ImageFormat) -> Pixels:
    return form.decode(file.read())


@dataclass(frozen=True)
class Store:
    """The images of all classes, class after class.

    Attributes:
        images: `(examples, channels, height, width)` bytes, memory-mapped.
        sizes: number of images by class.
        fingerprint: of classes and pixels.
        prints: the same for each class alone.
        duplicates: pairs of equal images in different classes, each as class and name.
    """

    images: Tensor
    sizes: dict[str, int]
    fingerprint: str
    prints: dict[str, str]
    duplicates: list[list[str]]

    def splits(
        self,
        name: str,
        chosen: Mapping[str, Sequence[str]],
        *,
        prepare: Callable[[Any], Any] = images_to_float,
        whole: bool = False,
    ) -> dict[str, Split]:
        """The splits of a data set by the names of their classes; equal images are reported.

        Args:
            name: of the data set.
            chosen: the classes of each split.
            prepare: from bytes to usable features.
            whole: fingerprint each split by all images of the store, as published results did,
                instead of by its own, whose episodes outlast a change of the others.
        """
        ends = np.cumsum(list(self.sizes.values()))
        starts = dict(zip(self.sizes, (ends - list(self.sizes.values())).tolist(), strict=True))
        made = {}
        for split, classes in chosen.items():
            own = [list(self.images.shape[1:]), *(self.prints[c] for c in classes)]
            identity = json.dumps([self.fingerprint if whole else own, list(classes)])
            made[split] = Split(
                f"{name}/{split}",
                self.images,
                tuple(self.sizes[c] for c in classes),
                tuple(classes),
                prepare,
                hashlib.sha256(identity.encode()).hexdigest()[:16],
                tuple(starts[c] for c in classes),
            )
        self._report_duplicates(name, chosen)
        return made

    def _report_duplicates(self, name: str, chosen: Mapping[str, Sequence[Hashable]]) -> None:
        home = {label: split for split, classes in chosen.items() for label in classes}
        crossing = [
            (home[a], first, home[b], second)
            for a, first, b, second in self.duplicates
            if a in home and b in home and home[a] != home[b]
        ]
        if crossing:
            split, first, other, second = crossing[0]
            warnings.warn(
                f"{name}: {len(crossing)} image(s) are in two splits, such as {first} ({split}) "
                f"and {second} ({other}): scores say a little too much; in data of your own, "
                "remove one of each pair.",
                stacklevel=2,
            )


def open_store(
    name: str,
    source: object,
    form: ImageFormat,
    items: Callable[[], AbstractContextManager[Sequence[Item]]],
    *,
    skip_unreadable: bool | None = None,
    by_content: bool = False,
) -> Store:
    """The store of these images, made on first use.

    Args:
        name: of the data set.
        source: anything JSON can hold that changes when the images do.
        form: size, channels and filter.
        items: lists the images, class after class; called only where the store must be made.
        skip_unreadable: leave unreadable images out instead of refusing them all; None where the
            data set offers no such choice.
        by_content: order each class by its images' hashes, so that copies with other file names
            give the same store.

    Raises:
        DataError: for unreadable images, or no images at all; nothing is left behind.
    """
    identity = [VERSION, name, source, vars(form), skip_unreadable, by_content]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{key}"
    if not (folder / "index.json").exists():
        with items() as listed:
            _build(folder, name, listed, skip_unreadable, by_content)
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        # Copy on write, because torch has no read-only tensors; nothing ever writes.
        mapped = np.memmap(folder / "images.bin", np.uint8, mode="c", shape=tuple(index["shape"]))
        store = Store(
            torch.from_numpy(mapped),
            index["sizes"],
            index["fingerprint"],
            index["prints"],
            index["duplicates"],
        )
        bad = index["unreadable"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is damaged ({error}): remove this folder, and it is made again."
        ) from error
    if bad:
        total = len(mapped) + len(bad)
        warnings.warn(f"{_complaint(name, bad, total)}: left out.", stacklevel=2)
    return store


def _build(
    folder: Path, name: str, items: Sequence[Item], skip_unreadable: bool | None, by_content: bool
) -> None:
    if not items:
        raise DataError(f"{name}: no images were found there.")
    # By chance, not by the process: containers that share a cache may have equal numbers.
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}")
    try:
        _remove_abandoned(folder.parent)
        temporary.mkdir(parents=True)
        with Progress(transient=True) as bar:
            index = _write(
                temporary / "images.bin",
                bar.track(items, description=f"Reading {name} (once)"),
                by_content,
            )
        bad = index["unreadable"]
        if bad and not skip_unreadable:
            raise DataError(f"{_complaint(name, bad, len(items))}: {_advice(skip_unreadable)}")
        if not index["sizes"]:
            raise DataError(f"{_complaint(name, bad, len(items))}: none is left.")
        (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    """Remove the half-made stores of processes that were killed."""
    for images in cache.glob(".*/images.bin"):
        with suppress(OSError):  # another process may be removing it too
            if time.time() - images.stat().st_mtime > ABANDONED:
                shutil.rmtree(images.parent)


def _complaint(name: str, bad: Sequence[tuple[str, str]], total: int) -> str:
    shown = ", ".join(f"{file} ({why})" for file, why in bad[:LISTED])
    more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    return f"{name}: {len(bad)} of {total} images cannot be read: {shown}{more}"


def _advice(skip_unreadable: bool | None) -> str:
    if skip_unreadable is None:
        return "this copy is damaged; get it again."
    return "repair or remove them, or leave them out with skip_unreadable=true."


def _write(path: Path, items: Iterable[Item], by_content: bool) -> dict[str, Any]:
    """Stream the images into one file; returns the index. Memory holds one class at most."""
    digest = hashlib.sha256()
    seen: dict[bytes, tuple[str, str]] = {}
    prints: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    duplicates: list[list[str]] = []
    unreadable: list[tuple[str, str]] = []
    held: list[tuple[bytes, Pixels]] = []
    shape: tuple[int, ...] = ()
    last = ""

    with path.open("wb") as file:

        def flush() -> None:
            for mark, pixels in sorted(held, key=lambda pair: pair[0]):
                prints[last].update(mark)
                digest.update(pixels.data)
                file.write(pixels.data)
            held.clear()

        for label, name, load in items:
            try:
                pixels = load()
            except UnreadableError as error:
                unreadable.append((name, str(error)))
                continue
            if label not in sizes:
                flush()
                last, sizes[label], shape = label, 0, pixels.shape
                prints[label] = hashlib.sha256()
                digest.update(label.encode())
            if label != last:
                raise ValueError(f"class {label!r} comes in two pieces")
            sizes[label] += 1
            mark = hashlib.sha256(pixels.data).digest()[:16]
            first = seen.setdefault(mark, (label, name))
            if first[0] != label:
                duplicates.append([*first, label, name])
            held.append((mark, pixels))
            if not by_content:
                flush()
        flush()
    return {
        "shape": (sum(sizes.values()), *shape),
        "sizes": sizes,
        "fingerprint": digest.hexdigest()[:16],
        "prints": {label: own.hexdigest()[:16] for label, own in prints.items()},
        "duplicates": duplicates,
        "unreadable": unreadable,
    }
