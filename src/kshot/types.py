"""What travels between the layers: labelled examples, episodes, Gaussian predictions.

Axes are always `(tasks, examples, *features)`. Examples are not sorted by class and labels are
carried, never regenerated. Where tasks are uneven, a mask says which examples are real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.errors import EpisodeError

Features = Any
"""A tensor, or a dict of tensors, whose leading axes are shared."""

T = TypeVar("T")


def is_whole(value: object, least: int) -> bool:
    """Whether the value is a whole number of at least `least`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def map_features(fn: Callable[[Tensor], Tensor], x: Features) -> Features:
    """Apply `fn` to the tensor, or to each tensor of the dict."""
    return {k: fn(v) for k, v in x.items()} if isinstance(x, dict) else fn(x)


def first_tensor(x: Features) -> Tensor:
    """The tensor, or the first one of the dict: enough to ask for leading axes and device."""
    tensor: Tensor = next(iter(x.values())) if isinstance(x, dict) else x
    return tensor


def concatenate(parts: Sequence[Features]) -> Features:
    """One tensor of several, or a dict of them, along the first axis."""
    if isinstance(parts[0], dict):
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
    return torch.cat(list(parts))


class Gaussian(NamedTuple):
    """A prediction with its uncertainty; both `(tasks, queries, *values)`."""

    mean: Tensor
    std: Tensor


Output = Tensor | Gaussian
"""Logits `(tasks, queries, way)`, values `(tasks, queries, *values)`, or a `Gaussian`."""


@dataclass(frozen=True)
class Examples:
    """Labelled examples of a meta-batch of tasks.

    Attributes:
        x: features, `(tasks, examples, *features)`, or a dict of such tensors.
        y: integer labels `(tasks, examples)`, or floating values `(tasks, examples, *values)`,
            where a single number per example has the shape `(tasks, examples, 1)`.
        mask: `(tasks, examples)`, True where the example is real; None if all are.
        way: classes of the widest task; 0 for regression.
    """

    x: Features
    y: Tensor
    mask: Tensor | None = None
    way: int = 0

    def __post_init__(self) -> None:
        shape = first_tensor(self.x).shape
        if self.y.dim() < 2 or shape[:2] != self.y.shape[:2]:
            raise EpisodeError(
                f"x of shape {tuple(shape)} and y of shape {tuple(self.y.shape)} must both begin "
                "with (tasks, examples): for a single task add an axis, x[None] and y[None]."
            )
        if self.y.is_floating_point() and self.y.dim() == 2:
            raise EpisodeError(
                f"values of shape {tuple(self.y.shape)} need an axis of their own, "
                "(tasks, examples, values): use y[..., None]."
            )
        if not self.y.is_floating_point() and self.y.dtype != torch.int64:
            raise EpisodeError(
                f"labels must be int64 and values floating, not {self.y.dtype}: use y.long()."
            )

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return self.y.shape[0]

    @property
    def size(self) -> int:
        """Number of examples per task, padding included."""
        return self.y.shape[1]

    @property
    def real(self) -> Tensor:
        """The mask, or one that is True everywhere."""
        if self.mask is not None:
            return self.mask
        return self.y.new_ones(self.y.shape[:2], dtype=torch.bool)

    def with_x(self, x: Features) -> Examples:
        """The same labels and mask on other features (for example, embedded ones)."""
        return replace(self, x=x)

    def one_hot(self, dtype: torch.dtype) -> Tensor:
        """Labels as `(tasks, examples, way)`; rows of padding are zero."""
        rows = F.one_hot(self.y, self.way).to(dtype)
        return rows if self.mask is None else rows * self.mask.unsqueeze(-1)

    def present(self) -> Tensor:
        """`(tasks, way)`, True where a class has at least one example."""
        return self.one_hot(torch.float32).sum(1) > 0

    def flat(self) -> Features:
        """The real examples of all tasks in one batch: `(rows, *features)`."""
        if self.mask is None:
            return map_features(lambda v: v.flatten(0, 1), self.x)
        return map_features(lambda v: v[self.mask], self.x)

    def unflatten(self, rows: Tensor) -> Tensor:
        """The inverse of `flat` for any row-wise result; padding becomes zero."""
        if self.mask is None:
            return rows.reshape(self.tasks, self.size, *rows.shape[1:])
        padded = rows.new_zeros(self.tasks, self.size, *rows.shape[1:])
        padded[self.mask] = rows
        return padded

    def select(self, index: Tensor) -> Examples:
        """The tasks at `index`."""
        return replace(
            self,
            x=map_features(lambda v: v[index], self.x),
            y=self.y[index],
            mask=None if self.mask is None else self.mask[index],
        )

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device."""
        return replace(
            self,
            x=map_features(lambda v: v.to(device), self.x),
            y=self.y.to(device),
            mask=None if self.mask is None else self.mask.to(device),
        )


def unlabelled(x: Features, mask: Tensor | None = None) -> Examples:
    """Examples without labels: `(tasks, examples, *features)`; every label reads 0."""
    first = first_tensor(x)
    labels = torch.zeros(first.shape[:2], dtype=torch.int64, device=first.device)
    return Examples(x, labels, mask)


@dataclass(frozen=True)
class Episode:
    """One draw of support and query for each task of a meta-batch.

    Attributes:
        support: what the learner may learn from.
        query: what it is asked afterwards.
        key: `(tasks,)` int64, the episodes' counters: mini-batches and dropout are functions of it.
        classes: `(tasks, way)` int64, the number that each label's class has in the source, -1
            where a task has no such label; None for tasks without classes.
    """

    support: Examples
    query: Examples
    key: Tensor
    classes: Tensor | None = None

    @property
    def way(self) -> int:
        """Classes of the widest task; 0 for regression."""
        return self.support.way

    def select(self, index: Tensor) -> Episode:
        """The tasks at `index`."""
        classes = None if self.classes is None else self.classes[index]
        return Episode(
            self.support.select(index), self.query.select(index), self.key[index], classes
        )

    def to(self, device: torch.device | str) -> Episode:
        """The same episode on another device."""
        classes = None if self.classes is None else self.classes.to(device)
        return Episode(self.support.to(device), self.query.to(device), self.key.to(device), classes)
