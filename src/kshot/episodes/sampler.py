"""Episodes are counted, not streamed.

Episode i is a pure function of (fingerprint of the source data, spec, seed, i). Hence the same
episodes whatever the workers, devices, ranks or resume point, and a frozen test set is a seed and
a range.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import philox
from kshot.datasets.sources import Mixture, Source, Split
from kshot.episodes.any_shot import any_shots
from kshot.episodes.spec import EpisodeSpec, bounds, wide_enough
from kshot.errors import EpisodeError
from kshot.types import Episode, Examples, Features, concatenate, first_tensor, map_features

Index = NDArray[np.int64]

SAMPLER_VERSION = 1
"""Raised whenever the same arguments would draw other episodes; part of every key."""


@dataclass(frozen=True)
class _Draw:
    """One task: its classes; rows of the split and labels, support and query apart."""

    classes: Index
    support: Index
    support_labels: Index
    query: Index
    query_labels: Index


def episode_key(source: Source, spec: EpisodeSpec, seed: int) -> int:
    """The 128-bit key that all episodes of this source, spec and seed share."""
    return philox.key_of(SAMPLER_VERSION, source.fingerprint, spec.as_dict(), seed)


def draw(
    source: Source,
    spec: EpisodeSpec,
    seed: int,
    index: Sequence[int],
    *,
    prefer: Sequence[int] = (),
) -> Episode:
    """The episodes at `index`, as one meta-batch.

    Args:
        source: a split of classes, a mixture of splits, or a family of tasks.
        spec: way, shot and query.
        seed: chooses the sequence of episodes.
        index: the episodes' counters, any non-negative integers, in any order.
        prefer: numbers of classes (see `Episode.classes`) that come before all others, as far as
            an episode may have them: for a training that chooses its tasks.

    Returns:
        The meta-batch. Uneven tasks are padded at the end and masked.

    Raises:
        EpisodeError: if the source cannot give such episodes.
    """
    _check(source, spec, index)
    if not isinstance(source, (Split, Mixture)):
        key = episode_key(source, spec, seed)
        return source.draw(key, index, bounds(spec.shot)[0], spec.query)
    splits, tasks = _draw_tasks(source, spec, seed, index, prefer)
    way = max(len(task.classes) for task in tasks)
    device = first_tensor(splits[0].x).device
    first = _first_numbers(source)
    numbers = [task.classes + first[split] for split, task in zip(splits, tasks, strict=True)]
    return Episode(
        _gather(splits, [t.support for t in tasks], [t.support_labels for t in tasks], way),
        _gather(splits, [t.query for t in tasks], [t.query_labels for t in tasks], way),
        torch.tensor(index, dtype=torch.int64, device=device),
        _stack(numbers, way, fill=-1).to(device),
    )


def _first_numbers(source: Split | Mixture) -> dict[Split, int]:
    """Classes are numbered through all splits of a mixture; the number of each one's first."""
    counts = [len(split.sizes) for split in source.sources]
    return dict(zip(source.sources, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))


def class_names(
    source: Source, spec: EpisodeSpec, seed: int, index: Sequence[int]
) -> list[tuple[Hashable, ...]]:
    """For each episode that `draw` gives, the names of its classes: label k is that at k.

    Args:
        source: as for `draw`; tasks of a family have no classes, and no names.
        spec: as for `draw`.
        seed: as for `draw`.
        index: as for `draw`.

    Raises:
        EpisodeError: if the source cannot give such episodes.
    """
    _check(source, spec, index)
    if not isinstance(source, (Split, Mixture)):
        return [() for _ in index]
    drawn = zip(*_draw_tasks(source, spec, seed, index), strict=True)
    return [tuple(split.classes[c] for c in task.classes) for split, task in drawn]


def _check(source: Source, spec: EpisodeSpec, index: Sequence[int]) -> None:
    spec.check(source)
    if not (
        isinstance(index, (Sequence, np.ndarray))
        and len(index)
        and all(isinstance(i, (int, np.integer)) and 0 <= i < 2**63 for i in index)
    ):
        raise EpisodeError(
            f"index={index!r:.40}: give a list of episode numbers from 0, such as [0, 1] or "
            "range(32)."
        )


def _draw_tasks(
    source: Split | Mixture,
    spec: EpisodeSpec,
    seed: int,
    index: Sequence[int],
    prefer: Sequence[int] = (),
) -> tuple[list[Split], list[_Draw]]:
    """The tasks, and the split that each comes from."""
    key = episode_key(source, spec, seed)
    splits = [_own_split(source, key, i) for i in index]
    first = _first_numbers(source) if prefer else {}
    return splits, [
        _draw_task(split, spec, key, i, [c - first[split] for c in prefer])
        for split, i in zip(splits, index, strict=True)
    ]


def _own_split(source: Split | Mixture, key: int, i: int) -> Split:
    """The split that episode i comes from."""
    number = philox.integers(philox.words(key, i, 1, 10), 0, len(source.sources) - 1)[0]
    return source.sources[int(number)]


def _draw_task(split: Split, spec: EpisodeSpec, key: int, i: int, prefer: Sequence[int]) -> _Draw:
    # One stream for each kind of choice, so that a change of one leaves the others alone.
    pool = _pool(split, spec, key, i)
    low, high = bounds(spec.way)
    way = int(philox.integers(philox.words(key, i, 1, 0), low, min(high, len(pool)))[0])
    order = pool[philox.permutation(philox.words(key, i, len(pool), 2))]
    if prefer:
        order = order[np.argsort(~np.isin(order, prefer), kind="stable")]
    classes = order[:way]
    sizes = split.counts[classes]
    shots, queries = _shots(sizes, spec, key, i)
    widest = int(sizes.max())
    if split.aligned:
        raw = np.tile(philox.words(key, i, widest, 3), (way, 1))
    else:
        raw = philox.words(key, i, way * widest, 3).reshape(way, widest)
    raw[np.arange(widest) >= sizes[:, None]] = np.iinfo(np.uint64).max
    rows = philox.permutation(raw) + split.offsets[classes, None]
    column = np.arange(widest)
    in_support = column < shots[:, None]
    in_query = ~in_support & (column < shots[:, None] + queries)
    labels = np.broadcast_to(np.arange(way)[:, None], rows.shape)
    order = philox.permutation(philox.words(key, i, int(in_support.sum()), 4))
    query_order = philox.permutation(philox.words(key, i, int(in_query.sum()), 5))
    return _Draw(
        classes,
        rows[in_support][order],
        labels[in_support][order],
        rows[in_query][query_order],
        labels[in_query][query_order],
    )


def _pool(split: Split, spec: EpisodeSpec, key: int, i: int) -> Index:
    """The classes that episode i may draw from, in order."""
    pool = np.arange(len(split.sizes))
    if split.within is not None:
        groups = wide_enough(split, spec.needed_way)
        chosen = groups[philox.integers(philox.words(key, i, 1, 6), 0, len(groups) - 1)[0]]
        pool = pool[np.asarray(split.within) == chosen]
    if split.variants is not None:
        # Of each thing one variant: that which draws the least word.
        order = pool[philox.permutation(philox.words(key, i, len(pool), 7))]
        _, first = np.unique(np.asarray(split.variants)[order], return_index=True)
        pool = np.sort(order[first])
    return pool


def _shots(sizes: Index, spec: EpisodeSpec, key: int, i: int) -> tuple[Index, int]:
    """The shot of each class of episode i, and the queries that every class gets."""
    way = len(sizes)
    if spec.shot == "any":
        unit = philox.uniform(philox.words(key, i, 1, 8))[0]
        return any_shots(sizes, spec.query, unit, philox.uniform(philox.words(key, i, way, 9)))
    shots = philox.integers(philox.words(key, i, way, 1), *bounds(spec.shot))
    if not spec.imbalanced:
        shots[:] = shots[0]
    return shots, spec.query


def _gather(
    splits: Sequence[Split], rows: Sequence[Index], labels: Sequence[Index], way: int
) -> Examples:
    """The tasks' rows, each of its own split."""
    lengths = [len(r) for r in rows]
    device = first_tensor(splits[0].x).device
    mask = None
    if len(set(lengths)) > 1:
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        mask = mask.to(device)
    x = _features(splits, _stack(rows, max(lengths)).to(device))
    return Examples(x, _stack(labels, max(lengths)).to(device), mask, way)


def _features(splits: Sequence[Split], rows: Tensor) -> Features:
    """The features at these rows `(tasks, examples)`, of each split in one piece."""
    parts, places = [], []
    for split in dict.fromkeys(splits):
        tasks = [task for task, own in enumerate(splits) if own is split]
        parts.append(split.prepare(split.stored(rows[tasks])))
        places += tasks
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor(places, device=rows.device).argsort()
    return map_features(lambda v: v[order], concatenate(parts))


def _stack(rows: Sequence[Index], length: int, fill: int = 0) -> Tensor:
    """Rows as one tensor; shorter ones are filled up, which a mask covers or `fill` tells."""
    padded = [
        r if len(r) == length else np.pad(r, (0, length - len(r)), constant_values=fill)
        for r in rows
    ]
    return torch.from_numpy(np.stack(padded))


@dataclass(frozen=True)
class FrozenEpisodes:
    """The episodes [start, start + count) of a source: replayable anywhere, known by a hash.

    Attributes:
        source: a split of classes, a mixture of splits, or a family of tasks.
        spec: way, shot and query.
        count: number of episodes.
        seed: chooses the sequence of episodes.
        start: the first counter.
    """

    source: Source
    spec: EpisodeSpec
    count: int
    seed: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        self.spec.check(self.source)

    @property
    def hash(self) -> str:
        """Identifies these very episodes: data, spec, seed and range."""
        parts: Any = [str(episode_key(self.source, self.spec, self.seed)), self.start, self.count]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def batches(self, size: int) -> Iterator[Episode]:
        """The episodes in meta-batches of at most `size` tasks."""
        stop = self.start + self.count
        for first in range(self.start, stop, size):
            yield draw(self.source, self.spec, self.seed, range(first, min(first + size, stop)))
