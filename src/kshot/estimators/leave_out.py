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


class LeftOut(NamedTuple):
    """Answers to examples by learners that were fitted without them.

    Attributes:
        rows: of the examples, evenly spread where not all were asked.
        answers: logits `(rows, way)`.
    """

    rows: Tensor
    answers: Tensor


def leave_one_out(
    learner: MetaLearner, features: Features, y: Tensor, way: int, *, most: int = MOST
) -> LeftOut:
    """The answer to each example by a learner fitted to all others.

    Args:
        learner: as it takes the features.
        features: `(examples, *features)`.
        y: labels `(examples,)`.
        way: classes.
        most: examples to be left out.

    An example that is alone in its class cannot be recognised without itself, and is not asked.
    """
    asked = (torch.bincount(y, minlength=way) > 1)[y].nonzero().flatten()
    if len(asked) > most:
        asked = asked[torch.linspace(0, len(asked) - 1, most).long()]
    if len(asked) == 0:
        return LeftOut(asked, torch.zeros(0, way))
    kept = torch.ones(len(asked), len(y), dtype=torch.bool)
    kept[torch.arange(len(asked)), asked] = False
    found = _fitted(learner, features, y, way, kept, asked.unsqueeze(1))
    return LeftOut(asked, torch.cat([out[:, 0] for out in found]))


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
    # What a fit takes: the support, and each of its examples beside each answer.
    own = sum(v.numel() for v in _tensors(features)) + asked.shape[1] * len(y) * way
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
