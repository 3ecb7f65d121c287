"""Examples that stand in folders, files and tables, for `kshot fit` and `kshot predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from kshot.datasets.images import FORMATS, is_image
from kshot.datasets.tables import Columns, Row, choose_columns, is_table, rows_of
from kshot.errors import ConfigError, DataError
from kshot.estimators.forms import LARGEST
from kshot.estimators.inputs import Kind
from kshot.files import as_text

MOST = 100_000
"""Examples to fit on: more is no task of few examples."""


LABEL = "label"
"""The column of labels, where none is named."""

LOOK = 100
"""Rows that tell whether a column is of texts or of numbers."""


class Example(NamedTuple):
    """An example with what it is called in messages.

    Attributes:
        name: a path, or a table with a line.
        value: a path of an image, a text, or a list of numbers; or why the row has none.
        label: where there is one.
        columns: of a table, that the value is made of.
    """

    name: str
    value: Any
    label: Any = None
    columns: Sequence[str] = ()


def labelled(path: Path, label: str | None, columns: Sequence[str] | None) -> list[Example]:
    """The examples of a folder with a folder for each class, or of a table with a column of labels.

    Raises:
        DataError: for a class without an example, or what cannot be read.
        ConfigError: for columns that are not there.
    """
    if path.is_dir():
        if label or columns:
            raise ConfigError(f"--label and --column are for tables, but {path} is a folder.")
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
        yield from (Example(as_text(image), image, as_text(folder.name)) for image in images)


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_image(p.name) and not p.name.startswith("."))


def unlabelled(
    sources: Sequence[str], label: str | None, columns: Sequence[str] | None, kind: Kind
) -> Iterator[Example]:
    """The examples of images, folders of images (and of folders of these), and tables.

    Args:
        sources: paths.
        label: a column of tables that is no example.
        columns: of tables, that are.
        kind: of the examples that are wanted.

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
            yield from (Example(as_text(image), image) for image in images)
        elif is_table(path):
            yield from _of_table(path, label, columns, kind)
        elif path.is_file() and kind != "images":
            why = f"{path} is no table (.csv, .tsv, .jsonl), but this model takes {kind}."
            yield Example(as_text(path), DataError(why))
        elif path.is_file():
            yield Example(as_text(path), path)
        else:
            raise DataError(
                f"{source} does not exist: give images, folders of images, or tables (.csv, .tsv, "
                ".jsonl); a text is a row of a table."
            )


def _of_table(
    path: Path,
    label: str | None,
    columns: Sequence[str] | None,
    wanted: Kind | None = None,
) -> Iterator[Example]:
    """Without a kind that is wanted, each row has to have a label and an example."""
    rows = rows_of(path)
    first = list(islice(rows, LOOK))
    if not first:
        raise DataError(f"{path} has no rows.")
    required, label = wanted is None, label or LABEL
    known = label in first[0].cells and label not in (columns or ())
    own = label if required or known else None
    numbers = None if required else wanted == "vectors"
    chosen = choose_columns(path, first, own, columns, numbers=numbers)
    cells = [str(row.cells.get(chosen.names[0])) for row in first]
    if wanted == "images" and not any(map(is_image, cells)):
        raise DataError(
            f"{path}: {chosen.names[0]} is {cells[0]!r:.40}, but this model takes images: name the "
            "column of their paths by --column."
        )
    for row in chain(first, rows):
        try:
            value = chosen.value(path, row)
            _check_moderate(path, row, chosen, value)
        except DataError as error:
            if required:
                raise
            value = error
        if isinstance(value, str) and is_image(value):
            value = _beside(path, value)
        cell = row.cells.get(label)
        if required and cell in (None, ""):
            raise DataError(
                f"{path}, line {row.line}: {label} is empty: label it, or leave it out."
            )
        yield Example(f"{as_text(path)}:{row.line}", value, cell, chosen.names)


def _check_moderate(path: Path, row: Row, columns: Columns, value: Any) -> None:
    """Raise DataError for numbers that are too great."""
    for name, number in zip(columns.names, value, strict=True) if columns.numbers else ():
        if abs(number) > LARGEST:
            raise DataError(
                f"{path}, line {row.line}: {name} is {number:.3g}: numbers are to be from "
                f"{-LARGEST:.0e} to {LARGEST:.0e}; scale the column, or leave the row out."
            )


def _beside(table: Path, name: str) -> str:
    """An image that a table names: from the table's own folder, or as it is."""
    own = table.parent / name
    return str(own) if own.is_file() else name
