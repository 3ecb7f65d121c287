"""Made-up tables of numbers with classes: an endless family to meta-train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import philox
from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.types import Episode, Examples

Array = NDArray[np.float64]

COLUMNS, WAYS = (2, 32), (2, 10)
"""Of a table, both ends included."""


@dataclass(frozen=True)
class Tables:
    """Tasks of classes in a few hidden directions, seen through columns of many kinds.

    A task has 2 to 10 classes (few more often than many) and 2 to 32 columns; the rest of 32 are
    zeros. Each class is one or two Gaussian clouds in hidden directions; a column is a random,
    sparse combination of these with noise of its own, and then as it is, cubed, an exponential,
    cut into two, or rounded.

    Attributes:
        name: as in records; another name draws other tasks.
    """

    name: str = "tables"

    @property
    def fingerprint(self) -> str:
        """Identifies the ranges and the name."""
        return f"{self.name}:{COLUMNS}:{WAYS}:1"

    def draw(self, key: int, index: Sequence[int], shot: int, query: int) -> Episode:
        """Episodes with x `(tasks, examples, 32)`; each draws its own shot up to `shot`."""
        drawn = [_table(_Words(key, i), shot, query) for i in index]
        supports, queries = zip(*drawn, strict=True)
        return Episode(
            _stacked(supports), _stacked(queries), torch.tensor(index, dtype=torch.int64)
        )


class _Words:
    """Random numbers of one task, taken one after another."""

    def __init__(self, key: int, counter: int) -> None:
        self.key, self.counter, self.stream = key, counter, 0

    def uniform(self, *shape: int) -> Array:
        self.stream += 1
        raw = philox.words(self.key, self.counter, int(np.prod(shape, dtype=int)), self.stream)
        return philox.uniform(raw).reshape(shape)

    def normal(self, *shape: int) -> Array:
        inside = torch.from_numpy(self.uniform(*shape).clip(1e-12, 1 - 1e-12))
        return np.asarray(torch.special.ndtri(inside))

    def between(self, low: float, high: float, *shape: int) -> Array:
        """Uniform in the logarithm."""
        return np.asarray(low * (high / low) ** self.uniform(*shape))

    def whole(self, low: int, high: int) -> int:
        """As `between`, both ends included."""
        return int(self.between(low, high + 1).item())


Half = tuple[Array, NDArray[np.int64]]


def _table(words: _Words, shot: int, query: int) -> tuple[Half, Half]:
    """Support and query of one task."""
    way, columns, each = words.whole(*WAYS), words.whole(*COLUMNS), words.whole(1, shot)
    hidden = words.whole(1, max(2, columns // 2))
    clouds = 1 + int(words.uniform() < 0.3)
    count = each + query
    centres = words.between(0.5, 3.0) * words.normal(way, clouds, hidden)
    chosen = (words.uniform(way, count) * clouds).astype(int)
    spread = words.between(0.5, 1.5, way, 1, hidden)
    x = centres[np.arange(way)[:, None], chosen] + spread * words.normal(way, count, hidden)
    mixing = words.normal(hidden, columns) * (words.uniform(hidden, columns) < 0.5)
    noise = words.between(0.1, 3.0, columns)
    rows = x.reshape(way * count, hidden) @ mixing
    rows = rows + noise * words.normal(way * count, columns)
    rows = _warped(words, rows).reshape(way, count, columns)
    wide = np.zeros((way, count, COLUMNS[1]))
    wide[..., :columns] = rows
    labels = np.repeat(np.arange(way), count).reshape(way, count)
    support = wide[:, :each].reshape(-1, COLUMNS[1]), labels[:, :each].ravel()
    return support, (wide[:, each:].reshape(-1, COLUMNS[1]), labels[:, each:].ravel())


def _warped(words: _Words, x: Array) -> Array:
    """Each column as it is or changed, in a scale of its own."""
    z = (x - x.mean(0)) / x.std(0).clip(1e-9)
    cut = words.normal(x.shape[1])
    kinds = [z, z**3 / 3, np.exp(z.clip(-4, 4)), (z > cut) * 1.0, (2 * z).round() / 2]
    limits = np.cumsum([0.6, 0.1, 0.12, 0.1])
    kind = np.searchsorted(limits, words.uniform(x.shape[1]))
    warped = np.choose(kind, kinds)
    return np.asarray(warped * words.between(0.1, 100, x.shape[1]) + words.normal(x.shape[1]))


def _stacked(halves: Sequence[Half]) -> Examples:
    """Tasks of several sizes as one meta-batch, padded at the end."""
    longest = max(len(y) for _, y in halves)
    x = torch.zeros(len(halves), longest, COLUMNS[1])
    y = torch.zeros(len(halves), longest, dtype=torch.int64)
    mask = torch.zeros(len(halves), longest, dtype=torch.bool)
    for i, (rows, labels) in enumerate(halves):
        x[i, : len(labels)] = torch.from_numpy(rows)
        y[i, : len(labels)] = torch.from_numpy(labels)
        mask[i, : len(labels)] = True
    return Examples(x, y, _unless_all(mask), WAYS[1])


def _unless_all(mask: Tensor) -> Tensor | None:
    return None if bool(mask.all()) else mask


def load_tables() -> Dataset:
    """Made-up tables: an endless family, other tasks in each split."""
    return Dataset(
        "tables",
        {split: Tables(f"tables/{split}") for split in ("train", "val", "test")},
        tables.about,
        tables.source,
        tables.licence,
    )


tables = Entry(
    load_tables,
    about="made-up tables: 2 to 32 columns, 2 to 10 classes, a shot drawn up to the one asked for",
    size="endless tasks",
    splits=("train", "val", "test"),
    source="generated",
    licence="none needed",
)
