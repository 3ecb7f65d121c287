"""Tables of texts or numbers: CSV and JSON lines, row by row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from kshot.errors import ConfigError, DataError

DELIMITERS = ",;\t"
MAX_CELL = 1_000_000
"""Characters of a cell: more is no text but a damaged file."""


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: its number in the file, from 1.
        cells: the values by column; text in a CSV file, anything in JSON lines.
    """

    line: int
    cells: dict[str, Any]


def is_table(path: Path) -> bool:
    """Whether the name ends as a table's.

    Raises:
        DataError: if it ends as a spreadsheet's.
    """
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise DataError(f"{path} is a spreadsheet: save it as CSV.")
    return path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson")


def rows_of(path: Path) -> Iterator[Row]:
    """The rows, one at a time.

    Raises:
        DataError: if the file cannot be read, is no UTF-8, or has rows of several shapes.
    """
    reader = _json_rows if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_rows
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from reader(path, file)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not all UTF-8 (byte {error.object[error.start]:#04x}): save it as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _csv_rows(path: Path, file: TextIO) -> Iterator[Row]:
    head = file.readline(MAX_CELL)
    if not head.strip():
        raise DataError(f"{path} is empty: its first line has to name the columns.")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(DELIMITERS, key=head.count)
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(chain([head], file), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or "" in names:
            raise DataError(
                f"{path}: the first line has to give each column a name of its own, but "
                + (f"{twice!r} comes twice." if twice else "one has none.")
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the first line names "
                    f"{len(names)} columns ({', '.join(names[:8])})."
                )
            yield Row(reader.line_num, dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        said = str(error)
        if "unexpected end" in said:
            said = "a quotation mark is opened and never closed"
        raise DataError(f"{path}, line {reader.line_num}: {said}.") from error


def _json_rows(path: Path, file: TextIO) -> Iterator[Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {line} is no JSON ({error}).") from error
        if not isinstance(cells, dict):
            raise DataError(
                f"{path}, line {line} is no object: give one for each row, such as "
                '{"text": "...", "label": "..."}.'
            )
        yield Row(line, cells)


class Columns(NamedTuple):
    """Which columns are the examples.

    Attributes:
        names: one of texts (or names of images), or several of numbers.
        numbers: whether they are numbers.
    """

    names: Sequence[str]
    numbers: bool

    def value(self, path: Path, row: Row) -> Any:
        """The example of a row: a text, or a list of numbers.

        Raises:
            DataError: for a missing cell, or one that is no number.
        """
        cells = [self._cell(path, row, name) for name in self.names]
        return cells if self.numbers else cells[0]

    def _cell(self, path: Path, row: Row, name: str) -> Any:
        cell = row.cells.get(name)
        if cell is None or cell == "":
            raise DataError(
                f"{path}, line {row.line}: {name} is empty: fill it, or leave the row out."
            )
        if not self.numbers:
            return str(cell)
        if (number := number_in(cell)) is None:
            raise DataError(f"{path}, line {row.line}: {name} is {cell!r:.40}, which is no number.")
        return number


def choose_columns(
    path: Path,
    rows: Sequence[Row],
    label: str | None,
    columns: Sequence[str] | None,
    *,
    numbers: bool | None = None,
) -> Columns:
    """The columns of the examples: those that are named, or what the first rows let guess.

    All others than the label: if they are numbers, together a vector; a single one of texts.

    Args:
        path: of the table.
        rows: the first ones.
        label: the column of labels, if there is one.
        columns: that are named.
        numbers: whether they are to be numbers, where that is known.

    Raises:
        ConfigError: for columns that are not there, or where it cannot be guessed.
        DataError: for numbers with a comma.
    """
    there = list(rows[0].cells)
    for name in [*(columns or ()), *([label] if label else ())]:
        if name not in there:
            raise ConfigError(
                f"{path} has no column {name!r}: it has {', '.join(map(repr, there[:12]))}; name "
                "the columns by --label and --column."
            )
    names = [name for name in columns or there if name != label]
    if not names:
        raise ConfigError(f"{path} has no column beside {label!r}: add one of examples.")
    if columns and len(names) > 1 and numbers is None:
        numbers = True
    if numbers is False and len(names) > 1:
        raise ConfigError(
            f"{path} has {len(names)} columns ({', '.join(names[:4])}), of which one has to be the "
            "examples: name it by --column."
        )
    if numbers is not None:
        return Columns(names, numbers)
    texts = [name for name in names if _of_texts([row.cells.get(name) for row in rows])]
    for name in texts:
        cell = str(rows[0].cells.get(name))
        if "," in cell and number_in(cell.replace(",", ".")) is not None:
            raise DataError(
                f"{path}: {name} is {cell!r}: write numbers with a decimal point and "
                "nothing between thousands."
            )
    if texts and len(names) > 1:
        raise ConfigError(
            f"{path} has columns of texts ({', '.join(texts[:4])}) among {len(names)}: name the "
            "one of texts, or those of numbers, by --column."
        )
    return Columns(names, not texts)


def _of_texts(cells: Sequence[Any]) -> bool:
    """Whether half of the cells that are filled, or more, are no numbers, not even "nan"."""
    filled = [_float(cell) is None for cell in cells if cell not in (None, "")]
    return 2 * sum(filled) >= max(len(filled), 1)


def number_in(cell: Any) -> float | None:
    """The finite number that a cell holds, if it does."""
    number = _float(cell)
    return number if number is not None and math.isfinite(number) else None


def _float(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
