"""Meta-Album (Ullah et al. 2022): one of its data sets, from the user's copy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.datasets.folder import check_splits, draw_classes, large_enough, own_store
from kshot.datasets.images import ImageFormat, Resize
from kshot.datasets.raw import RawFile, UnreadableError, raw_files, read_table
from kshot.errors import ConfigError, DataError


def load_meta_album(
    path: str = "",
    *,
    size: int = 128,
    resize: Resize = "lanczos",
    splits: Mapping[str, float] | None = None,
    seed: int = 0,
    min_examples: int = 2,
    skip_unreadable: bool = False,
) -> Dataset:
    """One data set of Meta-Album; `(3, size, size)` bytes.

    Args:
        path: its folder or zip archive: `labels.csv`, images in `images` or beside it, and
            `info.json`, which may name other columns than FILE_NAME and CATEGORY.
        size: of the square, in pixels.
        resize: the filter: `nearest`, `bilinear` or `lanczos`.
        splits: the fraction of the classes that each split gets; by default train 0.64, val 0.16,
            test 0.2.
        seed: of the draw of the classes.
        min_examples: classes with fewer images are left out, with a warning.
        skip_unreadable: leave unreadable images out instead of refusing them all.

    Raises:
        DataError: if the copy is not laid out so, or lacks images; if too few classes are left.
        ConfigError: for an impossible option.
    """
    if not path:
        raise ConfigError("the data set meta_album needs path, the folder of one of its data sets.")
    form = ImageFormat(size, 3, resize)
    source = Path(path).expanduser()
    with raw_files(source) as files:
        images = _labelled(source, files)
        store = own_store("meta_album", source, images, form, skip_unreadable=skip_unreadable)
    classes = large_enough("meta_album", store, min_examples)
    chosen = draw_classes(classes, splits, seed)
    check_splits("meta_album", chosen, min_examples)
    made = store.splits("meta_album", chosen)
    return Dataset("meta_album", made, meta_album.about, meta_album.source, meta_album.licence)


def _labelled(path: Path, files: Sequence[RawFile]) -> list[tuple[str, RawFile]]:
    """Category and file of each image."""
    by_path = {file.path: file for file in files}
    tables = [file for file in files if PurePosixPath(file.path).name == "labels.csv"]
    if len(tables) != 1:
        found = ", ".join(file.folder for file in tables)
        raise DataError(
            f"{path} has {len(tables)} files labels.csv{f' ({found})' if found else ''}: give the "
            "folder or zip archive of one Meta-Album data set, which has one."
        )
    base = PurePosixPath(tables[0].path).parent
    info = _info(by_path.get(str(base / "info.json")))
    rows = read_table(
        tables[0],
        str(info.get("image_column_name", "FILE_NAME")),
        str(info.get("category_column_name", "CATEGORY")),
        delimiter="\t" if info.get("csv_with_tab") else ",",
    )
    images = [
        (label, by_path.get(str(base / "images" / name)) or by_path.get(str(base / name)), name)
        for name, label in rows
    ]
    if missing := [name for _, file, name in images if file is None]:
        raise DataError(
            f"{path} lacks {len(missing)} of {len(rows)} images that its labels.csv names, such as "
            f"{', '.join(missing[:3])}: put them into its folder images."
        )
    return [(label, file) for label, file, _ in images if file is not None]


def _info(file: RawFile | None) -> Mapping[str, object]:
    if file is None:
        return {}
    try:
        info = json.loads(file.read())
    except (UnreadableError, ValueError) as error:
        raise DataError(f"{file.path} cannot be read as JSON: {error}.") from error
    if not isinstance(info, dict):
        raise DataError(f"{file.path} must hold a table of names and values, as Meta-Album's do.")
    return info


meta_album = Entry(
    load_meta_album,
    about="one of Meta-Album's data sets of many domains, 128x128 colour",
    size="what the option path holds",
    splits=("train", "val", "test"),
    source="meta-album.github.io (Ullah et al. 2022)",
    licence="that of the data set",
    present=lambda: False,
    otherwise="needs the option path",
)
