"""Anyone's images in a folder or zip archive, whose sub-folders are the classes."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath

from kshot.datasets.base import Dataset, classes_per_split
from kshot.datasets.catalogue import Entry
from kshot.datasets.images import FORMATS, ImageFormat, Resize, is_image
from kshot.datasets.raw import RawFile, raw_files
from kshot.datasets.store import LISTED, Store, image_item, open_store
from kshot.errors import ConfigError, DataError, unknown
from kshot.types import is_whole

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
"""Names of folders that hold a split's classes, whatever their case."""

NOTES = (".txt", ".md", ".csv", ".json", ".xml", ".pdf", ".db", ".ini", "readme", "license")
"""How the names of files end that nobody takes for images."""

FRACTIONS = {"train": 0.64, "val": 0.16, "test": 0.2}
"""Of the classes, where nobody says otherwise: mini-ImageNet's."""


def load_folder(
    path: str = "",
    *,
    size: int = 84,
    channels: int = 3,
    resize: Resize = "lanczos",
    splits: Mapping[str, float] | None = None,
    seed: int = 0,
    min_examples: int = 2,
    skip_unreadable: bool = False,
) -> Dataset:
    """Images laid out as `class/image`, or as `split/class/image`; `(channels, size, size)` bytes.

    Args:
        path: a folder, or a zip archive of one. Where its folders are called train, val (or valid,
            validation, dev) and test, their sub-folders are the classes of these splits.
        size: of the square, in pixels.
        channels: 1 (grey) or 3 (colour).
        resize: the filter: `nearest`, `bilinear` or `lanczos`.
        splits: the fraction of the classes that each split gets, where the folders name none; by
            default train 0.64, val 0.16, test 0.2.
        seed: of the draw of the classes.
        min_examples: classes with fewer images are left out, with a warning.
        skip_unreadable: leave unreadable images out instead of refusing them all.

    Raises:
        DataError: if there are no images, or not where a class is expected; if a class is in two
            splits; if too few classes are left.
        ConfigError: for an impossible option.
    """
    if not path:
        raise ConfigError(
            "the data set folder needs path, a folder or zip archive of images: in a recipe it is "
            "dataset.path, such as --set dataset.path=photos."
        )
    form = ImageFormat(size, channels, resize)
    source = Path(path).expanduser()
    with raw_files(source) as files:
        images, homes = _arrange(source, files)
        if homes and splits is not None:
            raise ConfigError(
                f"{source} has folders {', '.join(sorted(set(homes.values())))}, which say the "
                "splits: leave the option splits out."
            )
        _report_other_files(files)
        store = own_store("folder", source, images, form, skip_unreadable=skip_unreadable)
    classes = large_enough("folder", store, min_examples)
    chosen = {
        split: [c for c in classes if homes[c] == split]
        for split in ("train", "val", "test")
        if split in homes.values()
    } or draw_classes(classes, splits, seed)
    check_splits("folder", chosen, min_examples)
    made = store.splits("folder", chosen)
    return Dataset("folder", made, folder.about, folder.source, folder.licence)


def own_store(
    name: str,
    path: Path,
    images: Sequence[tuple[str, RawFile]],
    form: ImageFormat,
    *,
    skip_unreadable: bool,
) -> Store:
    """The store of a user's own images, made again whenever one of them changes.

    Args:
        name: of the data set.
        path: where the images are.
        images: class and file of each.
        form: size, channels and filter.
        skip_unreadable: leave unreadable images out instead of refusing them all.

    Raises:
        DataError: for unreadable images.
        ConfigError: if `skip_unreadable` is no truth value.
    """
    if not isinstance(skip_unreadable, bool):
        raise ConfigError(f"skip_unreadable={skip_unreadable!r} is neither true nor false.")
    images = sorted(images, key=lambda image: (image[0], image[1].path))
    digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape"))
    for label, file in images:
        digest.update(f"{label}\0{file.path}\0{file.mark}\0".encode())
    items = [image_item(label, file, form) for label, file in images]
    return open_store(
        name, digest.hexdigest(), form, lambda: nullcontext(items), skip_unreadable=skip_unreadable
    )


def large_enough(name: str, store: Store, min_examples: int) -> list[str]:
    """The classes with at least `min_examples` images; a warning names the others.

    Raises:
        DataError: if fewer than two are left.
        ConfigError: if `min_examples` is no number from 1.
    """
    if not is_whole(min_examples, 1):
        raise ConfigError(f"min_examples={min_examples!r}: give a number from 1.")
    small = {label: size for label, size in store.sizes.items() if size < min_examples}
    classes = [label for label in store.sizes if label not in small]
    if len(classes) < 2:
        raise DataError(
            f"{name}: of {len(store.sizes)} class(es), {len(classes)} have at least {min_examples} "
            "images, but a task needs 2 classes: give more images, or lower min_examples."
        )
    if small:
        shown = ", ".join(f"{label} ({size})" for label, size in list(small.items())[:LISTED])
        more = f" and {len(small) - LISTED} more" if len(small) > LISTED else ""
        warnings.warn(
            f"{name}: {len(small)} class(es) with fewer than {min_examples} images are left out: "
            f"{shown}{more}.",
            stacklevel=2,
        )
    return classes


def draw_classes(
    classes: Sequence[str], splits: Mapping[str, float] | None, seed: int
) -> dict[str, list[str]]:
    """The classes of each split, drawn by `seed`; `splits` are fractions of them.

    Raises:
        DataError: for impossible fractions.
        ConfigError: if `splits` are no fractions, or of other splits than train, val and test.
    """
    splits = FRACTIONS if splits is None else splits
    if not (
        isinstance(splits, Mapping)
        and splits
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in splits.values())
    ):
        raise ConfigError(
            f"splits={splits!r}: give each split its fraction of the classes, such as {FRACTIONS}."
        )
    if others := [split for split in splits if split not in FRACTIONS]:
        raise unknown("split", others[0], FRACTIONS)
    chosen = classes_per_split(splits, classes, seed)
    return {split: [str(label) for label in labels] for split, labels in chosen.items()}


def check_splits(name: str, chosen: Mapping[str, Sequence[str]], min_examples: int) -> None:
    """Raise DataError if a split has no class."""
    if empty := next((split for split, labels in chosen.items() if not labels), None):
        raise DataError(
            f"{name}: of {sum(map(len, chosen.values()))} classes with at least min_examples="
            f"{min_examples} images, none is left for the split {empty!r}: give more images, lower "
            "min_examples, or draw the classes in other fractions, such as splits={'test': 1}."
        )


def _arrange(
    path: Path, files: Sequence[RawFile]
) -> tuple[list[tuple[str, RawFile]], dict[str, str]]:
    """Class and file of each image; the split of each class, where folders name splits."""
    images = [file for file in files if is_image(file.path)]
    if not images:
        endings = " ".join(sum(FORMATS.values(), ()))
        raise DataError(f"{path} has {len(files)} files, but no images ({endings}) among them.")
    places = [file.path.split("/") for file in images]
    # A folder around everything, as archives often have.
    while min(map(len, places)) > 2 and len(tops := _tops(places)) < 2 and tops.isdisjoint(SPLITS):
        places = [place[1:] for place in places]
    by_split = _tops(places) <= SPLITS.keys()
    depth = 3 if by_split else 2
    stray = [f.path for f, place in zip(images, places, strict=True) if len(place) != depth]
    if stray:
        raise DataError(
            f"{path}: {len(stray)} of {len(images)} images do not lie as "
            f"{'split/class/image' if by_split else 'class/image'}, such as {stray[0]}: move them "
            "into one folder for each class (with train, val and test above these, if at all)."
        )
    homes: dict[str, str] = {}
    for folder_name, label, _ in places if by_split else ():
        split = SPLITS[folder_name.lower()]
        if homes.setdefault(label, split) != split:
            raise DataError(
                f"{path}: the class {label} is in the splits {homes[label]} and {split}; "
                "splits must not share classes: give it to one of them."
            )
    return [(place[-2], file) for place, file in zip(places, images, strict=True)], homes


def _tops(places: Sequence[Sequence[str]]) -> set[str]:
    """The outermost folders; those of splits in small letters."""
    tops = {place[0] for place in places}
    return {top.lower() if top.lower() in SPLITS else top for top in tops}


def _report_other_files(files: Sequence[RawFile]) -> None:
    others = [f.path for f in files if not is_image(f.path) and not f.path.lower().endswith(NOTES)]
    if others:
        endings = Counter(PurePosixPath(path).suffix.lower() or "no ending" for path in others)
        shown = ", ".join(f"{ending}: {count}" for ending, count in endings.most_common(LISTED))
        warnings.warn(
            f"folder: {len(others)} file(s) of other kinds ({shown}) are left out, such as "
            f"{others[0]}: save photos as JPEG or PNG.",
            stacklevel=3,
        )


folder = Entry(
    load_folder,
    about="your own images, a folder for each class",
    size="what the option path holds",
    splits=("train", "val", "test"),
    source="a folder or zip archive that the option path names",
    licence="that of your images",
    present=lambda: False,
    otherwise="needs the option path",
)
