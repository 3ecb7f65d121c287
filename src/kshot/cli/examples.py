"""Examples that stand in folders, files and tables, for `kshot fit` and `kshot predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from kshot.datasets.images import FORMATS, is_image
from kshot.datasets.tables import choose_columns, is_table, rows_of
from kshot.errors import DataError

MOST = 100_000
"""Examples to fit on: more is no task of few examples."""


LOOK = 100
"""Rows that tell whether a column is of texts or of numbers."""


class Example(NamedTuple):
    """An example with what it is called in messages.

    Attributes:
        name: a path, or a table with a line.
        value: a path of an image, a text, or a list of numbers.
        label: where there is one.
        columns: of a table, that the value is made of.
    """

    name: str
    value: Any
    label: Any = None
    columns: Sequence[str] = ()


def labelled(path: Path, label: str, columns: Sequence[str] | None) -> list[Example]:
    """The examples of a folder with a folder for each class, or of a table with a column of labels.

    Raises:
        DataError: for a class without an example, or what cannot be read.
        ConfigError: for columns that are not there.
    """
    if path.is_dir():
        return list(_of_classes(path))
    if not is_table(path):
        what = "is neither a folder nor a table (.csv, .tsv, .jsonl)"
        raise DataError(f"{path} {what if path.exists() else 'does not exist: check the path'}.")
    examples: list[Example] = []
    for example in _of_table(path, label, columns):
        examples.append(example)
        if len(examples) > MOST:
            raise DataError(
                f"{path} has more than {MOST:,} rows: fit on some of them; a few of each class are "
                "enough."
            )
    if not examples:
        raise DataError(f"{path} has no rows.")
    return examples


def _of_classes(path: Path) -> Iterator[Example]:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(
            f"{path} has no folders: make one for each class, called by its name, and put the "
            "images of the class into it."
        )
    for folder in folders:
        images = _images_in(folder)
        if not images:
            endings = " ".join(sum(FORMATS.values(), ()))
            raise DataError(
                f"{folder} has no images ({endings}): a class needs at least one; remove the "
                "folder, or fill it."
            )
        yield from (Example(str(image), image, folder.name) for image in images)


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_image(p.name) and not p.name.startswith("."))


def unlabelled(
    sources: Sequence[str], label: str, columns: Sequence[str] | None, *, numbers: bool
) -> Iterator[Example]:
    """The examples of images, folders of images (and of folders of these), and tables.

    Args:
        sources: paths.
        label: a column of tables that is no example.
        columns: of tables, that are.
        numbers: whether these are numbers.

    Raises:
        DataError: for what is none of these, or cannot be read.
        ConfigError: for columns that are not there.
    """
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = [path, *sorted(p for p in path.rglob("*") if p.is_dir())]
            images = [image for folder in inside for image in _images_in(folder)]
            if not images:
                raise DataError(f"{path} has no images in it.")
            yield from (Example(str(image), image) for image in images)
        elif is_table(path):
            yield from _of_table(path, label, columns, required=False, numbers=numbers)
        elif path.is_file():
            yield Example(str(path), path)
        else:
            raise DataError(
                f"{source} does not exist: give images, folders of images, or tables (.csv, .tsv, "
                ".jsonl); a text is a row of a table."
            )


def _of_table(
    path: Path,
    label: str,
    columns: Sequence[str] | None,
    *,
    required: bool = True,
    numbers: bool | None = None,
) -> Iterator[Example]:
    rows = rows_of(path)
    first = list(islice(rows, LOOK))
    if not first:
        return
    known = label in first[0].cells and label not in (columns or ())
    own = label if required or known else None
    chosen = choose_columns(path, first, own, columns, numbers=numbers)
    for row in chain(first, rows):
        value = chosen.value(path, row)
        if isinstance(value, str) and is_image(value):
            value = _beside(path, value)
        cell = row.cells.get(label)
        if required and cell in (None, ""):
            raise DataError(
                f"{path}, line {row.line}: {label} is empty: label it, or leave it out."
            )
        yield Example(f"{path}:{row.line}", value, cell, chosen.names)


def _beside(table: Path, name: str) -> str:
    """An image that a table names: from the table's own folder, or as it is."""
    own = table.parent / name
    return str(own) if own.is_file() else name
