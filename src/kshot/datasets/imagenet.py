"""mini-ImageNet and tiered-ImageNet from the user's own copy, by the published class lists."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry, entry
from kshot.datasets.folder import own_store
from kshot.datasets.images import ImageFormat, Resize, is_image
from kshot.datasets.raw import RawFile, class_lists, locate, raw_files, read_table
from kshot.errors import DataError

IMAGES = {"mini_imagenet": 60_000, "tiered_imagenet": 779_165}
"""Of the published data sets."""

WORDNET = re.compile(r"n\d{8}")

LISTS = ("train.csv", "val.csv", "test.csv")

PICKLES = (".pkl", ".pickle", ".pkl.gz")


def load_imagenet(
    name: str,
    *,
    path: str | None = None,
    size: int = 84,
    resize: Resize = "lanczos",
    skip_unreadable: bool = False,
) -> Dataset:
    """mini-ImageNet or tiered-ImageNet from the user's own copy; `(3, size, size)` bytes.

    Args:
        name: `mini_imagenet`, in the split of Ravi and Larochelle (2017): 64/16/20 classes of 600
            photos; or `tiered_imagenet` (Ren et al. 2018): 351/97/160 classes, split by
            superclass, 779,165 photos.
        path: a folder or zip archive with a folder for each WordNet id, or with `train.csv`,
            `val.csv`, `test.csv` (columns filename, label) beside `images`; by default
            `KSHOT_DATA/mini-imagenet` or `tiered-imagenet`. There is no download.
        size: of the square, in pixels.
        resize: the filter, where images have another size.
        skip_unreadable: leave unreadable images out instead of refusing them all.

    Raises:
        DataError: if there is no copy, or an incomplete one, or a pickled one.
        ConfigError: for an impossible option.
    """
    form = ImageFormat(size, 3, resize)
    place = name.replace("_", "-")
    source = Path(path).expanduser() if path else locate(None, place)
    if source is None:
        raise DataError(
            f"{name} has no download, because ImageNet's terms forbid it: get ImageNet from "
            f"image-net.org and put its images, a folder for each WordNet id, into {place} of the "
            "folder that KSHOT_DATA names, or name their folder with path."
        )
    lists = class_lists(place)
    _refuse_pickles(source, [source.name])
    with raw_files(source) as files:
        images = _by_folder(source, files) or _by_list(source, files)
        if not images:
            _refuse_pickles(source, [file.path for file in files])
        wanted = {label for split in lists.values() for label in split}
        images = [(label, file) for label, file in images if label in wanted]
        _check_complete(name, source, {label for label, _ in images}, lists)
        if len(images) != IMAGES[name]:
            warnings.warn(
                f"{name}: {source} has {len(images)} images of its classes, but the published data "
                f"set has {IMAGES[name]}: do not compare scores with published ones.",
                stacklevel=2,
            )
        store = own_store(name, source, images, form, skip_unreadable=skip_unreadable)
    _check_complete(name, source, store.sizes, lists)
    known = entry(name)
    return Dataset(name, store.splits(name, lists), known.about, known.source, known.licence)


def _by_folder(source: Path, files: Sequence[RawFile]) -> list[tuple[str, RawFile]]:
    """Images in folders that are called by a WordNet id."""
    homes: dict[str, PurePosixPath] = {}
    images = []
    for file in files:
        label = file.folder
        if is_image(file.path) and WORDNET.fullmatch(label):
            home = PurePosixPath(file.path).parent
            if homes.setdefault(label, home) != home:
                raise DataError(
                    f"{source}: the class {label} is in {homes[label]} and in {home}: keep one "
                    "folder for each class."
                )
            images.append((label, file))
    return images


def _by_list(source: Path, files: Sequence[RawFile]) -> list[tuple[str, RawFile]]:
    """Images that `train.csv`, `val.csv` and `test.csv` name, wherever they lie."""
    by_name = {PurePosixPath(file.path).name: file for file in files}
    rows = [
        row
        for name in LISTS
        if name in by_name
        for row in read_table(by_name[name], "filename", "label")
    ]
    if missing := [name for name, _ in rows if name not in by_name]:
        raise DataError(
            f"{source} lacks {len(missing)} of {len(rows)} images that its lists name, such as "
            f"{', '.join(missing[:3])}: put them into {source / 'images'}."
        )
    return [(label, by_name[name]) for name, label in rows]


def _check_complete(
    name: str, source: Path, found: Iterable[str], lists: Mapping[str, Sequence[str]]
) -> None:
    present = set(found)
    wanted = [label for split in lists.values() for label in split]
    if missing := [label for label in wanted if label not in present]:
        raise DataError(
            f"{source} lacks {len(missing)} of {name}'s {len(wanted)} classes, such as "
            f"{', '.join(missing[:3])}: each needs a folder called by its WordNet id."
        )


def _refuse_pickles(source: Path, names: Sequence[str]) -> None:
    if found := [n for n in names if n.lower().endswith(PICKLES) and "/" not in n]:
        raise DataError(
            f"{source}: {found[0]} is a pickle, and opening one runs whatever code is in it: turn "
            "it into images once, as docs/data.md shows under 'Converting a pickled cache'."
        )


mini_imagenet = Entry(
    partial(load_imagenet, "mini_imagenet"),
    about="photos of ImageNet, 84x84 colour",
    size="100 classes (64/16/20), 600 examples each",
    splits=("train", "val", "test"),
    source="your own copy (Vinyals et al. 2016; split by Ravi and Larochelle 2017)",
    licence="ImageNet's terms: non-commercial research",
    present=lambda: locate(None, "mini-imagenet") is not None,
    otherwise="needs your own copy",
)

tiered_imagenet = Entry(
    partial(load_imagenet, "tiered_imagenet"),
    about="photos of ImageNet, split by superclass, 84x84 colour",
    size="608 classes (351/97/160), 779,165 examples",
    splits=("train", "val", "test"),
    source="your own copy (Ren et al. 2018)",
    licence="ImageNet's terms: non-commercial research",
    present=lambda: locate(None, "tiered-imagenet") is not None,
    otherwise="needs your own copy",
)
