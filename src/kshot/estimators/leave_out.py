"""What a learner says to its own examples when it is fitted without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.evaluation.embedding import device_of, evaluating
from kshot.learners import MetaLearner
from kshot.types import Examples, Features, first_tensor, map_features

VALUES = 2**24
"""Numbers in one batch of supports."""


MOST = 500
"""Examples that are left out, where there are more."""

FITS = 20
"""Learners that are fitted without some of the examples, at most."""


class LeftOut(NamedTuple):
    """Answers to examples by learners that were fitted without them.

    Attributes:
        rows: of the examples, drawn class by class where not all were asked.
        answers: logits `(rows, way)`.
    """

    rows: Tensor
    answers: Tensor


def leave_one_out(
    learner: MetaLearner, features: Features, y: Tensor, way: int, *, most: int = MOST
) -> LeftOut:
    """The answer to each example by a learner that was fitted without it.

    One example of every class is left out at a time, so that the classes keep their shares:
    without one example alone, a class would be rarer just where it is asked for, and a logistic
    regression would never answer it. Of classes of more than 20 examples, a twentieth is.

    Args:
        learner: as it takes the features.
        features: `(examples, *features)`.
        y: labels `(examples,)`.
        way: classes.
        most: examples to be left out.

    An example that is alone in its class cannot be recognised without itself, and is not asked.
    """
    several = (torch.bincount(y, minlength=way) > 1)[y]
    rows = several.nonzero().flatten()
    if len(rows) > most:
        rows = _shares(rows, y, most)
    if len(rows) == 0:
        return LeftOut(rows, torch.zeros(0, way))
    place = _places(y) % FITS
    folds, fold_of = torch.unique(place[rows], return_inverse=True)
    kept = (place != folds.unsqueeze(1)) | ~several
    # Each fold asks as many; what is too few is filled up with one of its own.
    seat = _places(fold_of)
    asked = rows[(fold_of == torch.arange(len(folds)).unsqueeze(1)).int().argmax(1)]
    asked = asked.unsqueeze(1).repeat(1, int(seat.max()) + 1)
    asked[fold_of, seat] = rows
    found = torch.cat([*_fitted(learner, features, y, way, kept, asked)])
    return LeftOut(rows, found[fold_of, seat])


def _shares(rows: Tensor, y: Tensor, most: int) -> Tensor:
    """Some of the rows: of each class its share."""
    mixed = rows[_mixed(len(rows))]
    by_class = mixed[y[mixed].argsort(stable=True)]
    return by_class[torch.linspace(0, len(rows) - 1, most).long()].sort().values


def few_of_each(y: Tensor, most: int) -> Tensor:
    """Rows of that many examples, as equally many of each class as there are."""
    mixed = _mixed(len(y))
    by_place = mixed[_places(y[mixed]).argsort(stable=True)]
    return by_place[:most].sort().values


def _mixed(count: int) -> Tensor:
    """At random, and always the same: what stands in turns or runs is not drawn in turns."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _places(y: Tensor) -> Tensor:
    """How many before each one have the same label."""
    order = y.argsort(stable=True)
    counts = torch.bincount(y)
    starts = counts.cumsum(0) - counts
    places = torch.empty_like(y)
    places[order] = torch.arange(len(y)) - starts[y[order]]
    return places


def without_each(
    learner: MetaLearner, features: Features, y: Tensor, way: int, rows: Tensor
) -> Iterator[Tensor]:
    """The answers to all examples by learners fitted without one of them, some rows at a time.

    Args:
        learner: as it takes the features.
        features: `(examples, *features)`.
        y: labels `(examples,)`.
        way: classes.
        rows: that are left out in turn; -1 leaves out none.

    Yields:
        Logits `(rows, examples, way)`.
    """
    kept = torch.arange(len(y)) != rows.unsqueeze(1)
    asked = torch.arange(len(y)).expand(len(rows), -1)
    yield from _fitted(learner, features, y, way, kept, asked)


def leave_class_out(learner: MetaLearner, features: Features, y: Tensor, way: int) -> Tensor:
    """The answers to each class's examples by a learner that was not shown that class.

    Args:
        learner: as it takes the features.
        features: `(examples, *features)`.
        y: labels `(examples,)`.
        way: classes; at least 3.

    Returns:
        Logits `(examples, way)`, class after class, that of the own class at its least.
    """
    answers = []
    for c in range(way):
        rows = (y == c).nonzero().flatten()
        (out,) = _fitted(learner, features, y, way, (y != c).unsqueeze(0), rows.unsqueeze(0))
        answers.append(out[0])
    return torch.cat(answers)


def _fitted(
    learner: MetaLearner, features: Features, y: Tensor, way: int, kept: Tensor, asked: Tensor
) -> Iterator[Tensor]:
    """For each row of `kept`, a fit to these examples and its answers to the rows of `asked`."""
    device = device_of(learner)
    # What a fit takes: the support, its products, and each of its examples beside each answer.
    numbers = sum(v.numel() for v in _tensors(features))
    own = numbers + min(len(y), numbers // len(y)) ** 2 + asked.shape[1] * len(y) * way
    size = max(1, VALUES // max(1, own))
    for mask, rows in zip(kept.split(size), asked.split(size), strict=True):
        # What is kept stands first, what is left out is padding.
        order = (~mask).int().argsort(dim=1, stable=True)
        support = Examples(_rows(features, order), y[order], mask.gather(1, order), way)
        with evaluating(learner):
            out = learner.adapt(support.to(device))(_rows(features, rows.to(device)))
        assert isinstance(out, Tensor)
        yield out.cpu()


def _rows(features: Features, rows: Tensor) -> Features:
    return map_features(lambda v: v.to(rows.device)[rows], features)


def _tensors(features: Features) -> list[Tensor]:
    return list(features.values()) if isinstance(features, dict) else [first_tensor(features)]
