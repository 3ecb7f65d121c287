"""What is to be seen in the examples of a fitted classifier: confusions, mistakes, duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.leave_out import leave_one_out, without_each
from kshot.types import first_tensor

NEAR = 0.05
"""Of the median distance between two examples: nearer ones are almost the same."""

DOUBTFUL = 0.5
"""Probability of another class from which a label is doubted."""


TO_DEVIATION = 1.4826
"""From the median of absolute deviations to a Gaussian's standard deviation."""


class Doubt(NamedTuple):
    """An example that the others would call something else.

    Attributes:
        row: of the example.
        answer: the class that they say, by its number.
        probability: of that class.
    """

    row: int
    answer: int
    probability: float


class Harm(NamedTuple):
    """An example without which the others are recognised better.

    Attributes:
        row: of the example.
        loss: by how much their mean loss (in nats) falls without it.
    """

    row: int
    loss: float


class Pair(NamedTuple):
    """Two examples that are almost the same.

    Attributes:
        rows: of both.
        distance: between them, as a share of the median distance.
        same_class: whether they have one label.
    """

    rows: tuple[int, int]
    distance: float
    same_class: bool


@dataclass(frozen=True)
class Inspection:
    """What leaving out each example shows.

    Attributes:
        rows: that were left out in turn; one alone in its class cannot be.
        confusion: `(way, way)`, how often a class (row) was answered as another (column).
        doubts: examples that may be mislabelled, the most certain first.
        harms: examples that make the others worse, the worst first.
        pairs: near duplicates, the nearest first.
    """

    rows: Tensor
    confusion: Tensor
    doubts: list[Doubt]
    harms: list[Harm]
    pairs: list[Pair]

    @property
    def right(self) -> int:
        """How many are recognised by the others."""
        return int(self.confusion.diagonal().sum())


def inspect(model: FewShotClassifier) -> Inspection:
    """Leave out each example in turn, and compare each with all others.

    Args:
        model: fitted.
    """
    y, way = model.labels_, len(model.classes_)
    rows, logits = leave_one_out(model.behind, model.support_.features, y, way)
    probabilities = torch.softmax(logits.double() / model.confidence_.temperature, -1)
    answers = probabilities.argmax(-1)
    confusion = torch.zeros(way, way, dtype=torch.int64)
    confusion.index_put_((y[rows], answers), torch.ones(len(rows), dtype=torch.int64), True)
    doubts = [
        Doubt(row, answer, float(p[answer]))
        for row, answer, p in zip(rows.tolist(), answers.tolist(), probabilities, strict=True)
        if answer != int(y[row]) and p[answer] >= DOUBTFUL
    ]
    return Inspection(
        rows,
        confusion,
        sorted(doubts, key=lambda d: -d.probability),
        _harms(model, rows, [doubt.row for doubt in doubts]),
        _pairs(model),
    )


def _harms(model: FewShotClassifier, rows: Tensor, doubted: list[int]) -> list[Harm]:
    """Each example's effect on the loss of the others, which are known in both cases.

    Examples whose label is in doubt do not judge: what helps a wrong label harms.
    """
    if len(rows) == 0:
        return []
    y = model.labels_
    arguments = (model.behind, model.support_.features, y, len(model.classes_))
    temperature = model.confidence_.temperature

    def losses(logits: Tensor) -> Tensor:
        return F.cross_entropy(
            (logits.double() / temperature).transpose(1, 2),
            y.expand(len(logits), -1),
            reduction="none",
        )

    (with_all,) = map(losses, without_each(*arguments, torch.tensor([-1])))
    without = torch.cat([losses(some) for some in without_each(*arguments, rows)])
    others = torch.ones(len(rows), len(y), dtype=torch.bool)
    others[torch.arange(len(rows)), rows] = False
    others[:, doubted] = False
    change = ((with_all - without) * others).sum(1) / others.sum(1)
    middle = change.median()
    spread = float((change - middle).abs().median()) * TO_DEVIATION
    found = [Harm(row, float(c)) for row, c in zip(rows.tolist(), change, strict=True)]
    # A fit always changes a little: only what stands out of all examples is named.
    least = max(float(middle) + 3 * spread, 1e-3)
    return sorted((h for h in found if h.loss > least), key=lambda h: -h.loss)


def _pairs(model: FewShotClassifier) -> list[Pair]:
    features = first_tensor(model.support_.features).flatten(1).double()
    distances = torch.cdist(features, features)
    upper = torch.triu_indices(len(features), len(features), 1)
    values = distances[upper[0], upper[1]]
    limit = NEAR * float(values.median()) if len(values) else 0.0
    y = model.labels_
    found = [
        Pair((i, j), d / (limit / NEAR) if limit else 0.0, bool(y[i] == y[j]))
        for i, j, d in zip(*upper.tolist(), values.tolist(), strict=True)
        if d <= limit
    ]
    return sorted(found, key=lambda pair: (pair.same_class, pair.distance))
