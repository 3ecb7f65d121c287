"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1623 characters by 20 drawers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kshot import philox
from kshot.datasets.base import Dataset, check_seed
from kshot.datasets.catalogue import Entry
from kshot.datasets.download import fetch
from kshot.datasets.images import ImageFormat, Resize
from kshot.datasets.raw import RawFile, class_lists, copy_mark, locate, raw_files
from kshot.datasets.sources import Split, images_to_float
from kshot.datasets.store import Item, Store, image_item, open_store
from kshot.errors import ConfigError, DataError, unknown
from kshot.types import Features, map_features

Protocol = Literal["vinyals", "random-1200", "background-evaluation", "one-shot"]
Rotations = Literal["classes", "train", "class-per-task", "task", "none"]

DRAWERS = 20
TURNS = 4

PARTS = {
    "images_background": (964, "md5:68d2efa1b9178cc56df9314c21c6e718"),
    "images_evaluation": (659, "md5:6b91aef0f799c5bb55b94e3f2daec811"),
}
"""The publisher's archives: characters in each, and the checksum of his own files."""

MIRRORS = (
    "https://raw.githubusercontent.com/brendenlake/omniglot/master/python",
    "https://github.com/brendenlake/omniglot/raw/master/python",
)

SMALLEST = 5
"""Background alphabets that serve meta-validation where the publisher names none: the smallest."""

RANDOM_SIZES = {"train": 1100, "val": 100, "test": 423}

DEFAULT_ROTATIONS: dict[str, Rotations] = {
    "vinyals": "classes",
    "random-1200": "class-per-task",
    "background-evaluation": "none",
    "one-shot": "none",
}


def load_omniglot(
    protocol: Protocol = "vinyals",
    *,
    rotations: Rotations | None = None,
    resize: Resize = "nearest",
    ink: Literal["bright", "dark"] = "bright",
    size: int = 28,
    seed: int | None = None,
    path: str | None = None,
) -> Dataset:
    """Omniglot as one of the field's benchmarks; `(1, size, size)` bytes.

    Args:
        protocol: `vinyals` (1028/172/423 characters, nearly by alphabet), `random-1200`
            (1100/100/423 drawn by `seed` whatever the alphabet, as in MAML's code),
            `background-evaluation` (Lake's 964/659; the five smallest background alphabets are
            meta-validation: 883/81/659), or `one-shot`: the same characters, but a task stays
            within an alphabet, studies one drawer's characters and classifies another's.
        rotations: `classes` (each quarter turn is a class of its own; Snell et al.), `train` (the
            same in meta-training only; Reptile), `class-per-task` (a task turns each of its
            classes by chance; MAML), `task` (a task turns all of them alike; Relation Networks)
            or `none`. By default as the protocol's authors did.
        resize: `nearest` gives pixels 0 and 1 alone, as the papers' code does in effect, since the
            files have 1 bit; `bilinear` (torchmeta) and `lanczos` (learn2learn) give grey.
        ink: `bright` on dark, as in MAML's and ProtoNet's code, or `dark` as in the files.
        size: of the square, in pixels.
        seed: of the draw of `random-1200`, by default 0; the other protocols draw nothing.
        path: a folder with the publisher's two zips, or with them unpacked; by default
            `KSHOT_DATA/omniglot`, else they are downloaded.

    Raises:
        DataError: if a copy is damaged or incomplete, or cannot be downloaded.
        ConfigError: for an unknown protocol or convention, or an impossible option.
    """
    if protocol not in DEFAULT_ROTATIONS:
        raise unknown("protocol of omniglot", protocol, DEFAULT_ROTATIONS)
    rotations = rotations or DEFAULT_ROTATIONS[protocol]
    if rotations not in ("classes", "train", "class-per-task", "task", "none"):
        raise unknown(
            "rotation convention", rotations, ["classes", "train", "class-per-task", "task", "none"]
        )
    if protocol == "one-shot" and rotations == "task":
        raise ConfigError(
            "protocol='one-shot' keeps a task within an alphabet, rotations='task' within a turn: "
            "choose rotations 'none' or 'train'."
        )
    if ink not in ("bright", "dark"):
        raise ConfigError(f"ink={ink!r} is neither 'bright' nor 'dark'.")
    if seed is not None and protocol != "random-1200":
        raise ConfigError(
            f"seed={seed!r} has no meaning for protocol={protocol!r}, whose characters are given: "
            "leave it out, or choose protocol='random-1200'."
        )
    check_seed(seed := seed or 0)
    if path and Path(path).expanduser().is_file():
        raise DataError(
            f"{path} is a file, but Omniglot is {' and '.join(PARTS)}: give the folder in which "
            "both lie, as zip archives or unpacked."
        )
    form = ImageFormat(size, 1, resize)
    copies = {part: _copy(path, part) for part in PARTS}
    source = [copy_mark(copy) for copy in copies.values()]
    store = open_store("omniglot", source, form, partial(_items, copies, form))
    splits = store.splits(
        "omniglot",
        _characters(protocol, list(store.sizes), seed),
        prepare=images_to_float if ink == "dark" else _bright_ink,
        whole=True,
    )
    turned = _all_turns(store.images) if rotations != "none" else store.images
    made = {
        name: _finish(split, name, rotations, turned, store, within=protocol == "one-shot")
        for name, split in splits.items()
    }
    return Dataset("omniglot", made, omniglot.about, omniglot.source, omniglot.licence)


def _bright_ink(x: Features) -> Features:
    """The files show dark ink on white."""
    return map_features(lambda v: 1 - v.float() / 255, x)


def _characters(protocol: Protocol, names: list[str], seed: int) -> dict[str, list[str]]:
    """The characters of each split."""
    if protocol == "vinyals":
        return class_lists("omniglot-vinyals")
    if protocol == "random-1200":
        order = philox.permutation(philox.words(philox.key_of("omniglot", seed), 0, len(names)))
        chosen: dict[str, list[str]] = {}
        for split, count in RANDOM_SIZES.items():
            chosen[split] = sorted(names[i] for i in order[:count])
            order = order[count:]
        return chosen
    background, evaluation = (
        names[: PARTS["images_background"][0]],
        names[PARTS["images_background"][0] :],
    )
    widths = Counter(_alphabet(name) for name in background)
    held = sorted(widths, key=lambda alphabet: widths[alphabet])[:SMALLEST]
    return {
        "train": [name for name in background if _alphabet(name) not in held],
        "val": [name for name in background if _alphabet(name) in held],
        "test": evaluation,
    }


def _alphabet(character: str) -> str:
    return character.partition("/")[0]


def _all_turns(images: Tensor) -> Tensor:
    """Every character in four turns: rows by character, turn, drawer."""
    by_character = images.unflatten(0, (-1, DRAWERS))
    turns = [torch.rot90(by_character, k, (-2, -1)) for k in range(TURNS)]
    return torch.stack(turns, 1).flatten(0, 2)


def _finish(
    split: Split, name: str, rotations: Rotations, turned: Tensor, store: Store, *, within: bool
) -> Split:
    """The split with its rotations as classes, or its tasks bound to an alphabet."""
    base = list(split.classes)
    classes, starts = base, list(split.starts or ())
    variants: list[int] | None = None
    groups: list[int] | None = None
    if rotations != "none":
        numbers = [start // DRAWERS for start in starts]
        turns = 1 if rotations == "train" and name != "train" else TURNS
        classes = [f"{c}/rot{90 * k:03d}" for c in base for k in range(turns)]
        starts = [(n * TURNS + k) * DRAWERS for n in numbers for k in range(turns)]
        if rotations == "class-per-task":
            variants = [n for n in numbers for _ in range(turns)]
        if rotations == "task":
            groups = [k for _ in base for k in range(turns)]
    if within:
        alphabets = list(dict.fromkeys(map(_alphabet, store.sizes)))
        groups = [alphabets.index(_alphabet(str(c))) for c in classes]
    identity = [split.fingerprint, rotations, within]
    return Split(
        split.name,
        turned if rotations != "none" else store.images,
        (DRAWERS,) * len(classes),
        tuple(classes),
        split.prepare,
        f"{philox.key_of(*identity):032x}"[:16],
        tuple(starts),
        None if variants is None else tuple(variants),
        None if groups is None else tuple(groups),
        aligned=within,
    )


@contextmanager
def _items(copies: Mapping[str, Path | None], form: ImageFormat) -> Iterator[Sequence[Item]]:
    """All images, by part, character and drawer, after a check of their number."""
    with ExitStack() as stack:
        items = []
        for part, (characters, checksum) in PARTS.items():
            source = copies[part] or _download(part, checksum)
            found = _images(stack.enter_context(raw_files(source)), part)
            counts = Counter(label for label, _ in found)
            if len(counts) != characters or set(counts.values()) != {DRAWERS}:
                raise DataError(
                    f"{source} has {len(found)} images of {len(counts)} characters, but Omniglot's "
                    f"{part} has {characters} characters of {DRAWERS}: get it again."
                )
            items += [image_item(label, file, form) for label, file in found]
        yield items


def _copy(path: str | None, part: str) -> Path | None:
    names = (f"{part}.zip", part)
    return locate(path, *(f"omniglot/{name}" for name in names), *names)


def _download(part: str, checksum: str) -> Path:
    urls = [f"{mirror}/{part}.zip" for mirror in MIRRORS]
    return fetch(urls, checksum, place="omniglot in the folder that KSHOT_DATA names")


def _images(found: Sequence[RawFile], part: str) -> list[tuple[str, RawFile]]:
    """Class (`Alphabet/character01`) and file of each image, in order."""
    pairs = []
    for file in found:
        parts = [p for p in file.path.split("/") if p != part]
        if file.path.lower().endswith(".png") and len(parts) == 3:
            pairs.append(("/".join(parts[:2]), file))
    return pairs


omniglot = Entry(
    load_omniglot,
    about="handwritten characters of 50 alphabets",
    size="1,623 characters (6,492 classes with their quarter turns), 20 examples each",
    splits=("train", "val", "test"),
    source="github.com/brendenlake/omniglot (Lake, Salakhutdinov and Tenenbaum 2015)",
    licence="MIT",
    present=lambda: all(_copy(None, part) for part in PARTS),
    otherwise="downloaded on first use",
)
