"""Which method for these examples: ranked by what was learned over many tasks.

A ranker expects, by a few descriptors of a task, how far each candidate is above or below the mean
of all of them; it is fitted on meta-training episodes (benchmarks/ranker.py). Where a class has two
examples or more, what each candidate recognises of left-out examples refines that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot.estimators.leave_out import leave_one_out
from kshot.learners import MetaLearner, TaskShape, build_learner

Array = NDArray[np.float64]

CANDIDATES: dict[str, dict[str, Any]] = {
    "class means": {"name": "protonet"},
    "means of unit features": {"name": "simpleshot"},
    "logistic regression": {"name": "rfs"},
    "logistic regression, weak penalty": {"name": "rfs", "penalty": 0.1},
    "ridge regression": {"name": "r2d2"},
    "nearest neighbour": {"name": "nearest_neighbour"},
    "last layer, 50 steps": {"name": "fine_tuning", "fast": "last", "inner_steps": 50},
}
"""Heads that need no meta-training, by what they are called in words."""

FILE = "shipped/ranker.json"

LEFT_OUT = 40
"""Examples that each candidate is tried on, at most: so that a choice takes seconds."""


def build_candidate(name: str, features: int, way: int, length: int) -> MetaLearner:
    """The candidate, on features."""
    part = dict(CANDIDATES[name])
    shape = TaskShape((features,), way, length)
    return build_learner(part.pop("name"), nn.Identity(), shape, part).eval()


def descriptors(features: Tensor, y: Tensor, way: int) -> Array:
    """What a ranker is told of a task, from its support alone.

    Args:
        features: `(examples, features)`.
        y: labels.
        way: classes.

    Returns:
        Way, mean and least shot, number of features (logarithms); how far class means are apart
        beside the spread within classes, raw and at unit length; how many directions the features
        use; how unequal their lengths are.
    """
    x = features.flatten(1).double()
    counts = torch.bincount(y, minlength=way).double()
    lengths = x.norm(dim=1).clamp_min(1e-12)
    centred = x - x.mean(0)
    power = torch.linalg.svdvals(centred) ** 2
    share = power / power.sum().clamp_min(1e-12)
    rank = torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
    return np.array(
        [
            np.log(way),
            float(counts.mean().log()),
            float(counts.min().log()),
            np.log(x.shape[1]),
            *(_apart(v, y, way) for v in (x, x / lengths.unsqueeze(1))),
            float(rank.log()),
            float((lengths.std(correction=0) / lengths.mean()).log1p()),
        ]
    )


def _apart(x: Tensor, y: Tensor, way: int) -> float:
    """Log of the distance between class means beside the spread of an example around its own."""
    one_hot = torch.nn.functional.one_hot(y, way).to(x.dtype)
    counts = one_hot.sum(0).clamp_min(1)
    means = one_hot.T @ x / counts.unsqueeze(1)
    between = torch.pdist(means).square().mean()
    within = ((x - means[y]) ** 2).sum() / max(len(x) - way, 1)
    whole = ((x - x.mean(0)) ** 2).sum() / max(len(x) - 1, 1)
    # At one shot there is no spread within: the whole spread stands for it.
    spread = within if len(x) > way else whole
    return float(((between + 1e-12) / (spread + 1e-12)).log().clamp(-10, 10))


class LeftOutScores(NamedTuple):
    """How each candidate answers examples that it was fitted without.

    Attributes:
        shares: that it recognises, in the order of the candidates.
        examples: that were left out in turn; 0 where no class has two.
    """

    shares: Array
    examples: int


def left_out_scores(features: Tensor, y: Tensor, way: int) -> LeftOutScores:
    """Try every candidate on 40 examples at most."""
    shares, count = [], 0
    for name in CANDIDATES:
        learner = build_candidate(name, features.shape[1], way, len(y))
        rows, answers = leave_one_out(learner, features, y, way, most=LEFT_OUT)
        count = len(rows)
        shares.append(float((answers.argmax(1) == y[rows]).double().mean()) if count else 0.0)
    return LeftOutScores(np.array(shares), count)


@dataclass(frozen=True)
class Ranker:
    """How far each candidate is expected above or below the mean of all of them.

    A ridge regression on the descriptors is the prior; what a candidate recognises of left-out
    examples, above the mean of all, is added to it, the more the more examples there are.

    Attributes:
        candidates: their names, in the order of the outputs.
        centre: of the descriptors.
        scale: of the descriptors.
        weights: `(1 + descriptors + products of two, candidates)`, the offset first.
        trust: in left-out examples: an offset, and a factor of the logarithm of their number.
        average: the candidate that is best on average, whatever the task.
    """

    candidates: Sequence[str]
    centre: Array
    scale: Array
    weights: Array
    trust: Array
    average: str

    def prior(self, inputs: Array) -> Array:
        """Expected accuracy above the mean of all, `(tasks, candidates)`, of `(tasks, inputs)`."""
        expected: Array = expanded((inputs - self.centre) / self.scale) @ self.weights
        return expected

    def refined(self, inputs: Array, shares: Array, counts: Array) -> Array:
        """The same, with what was recognised of left-out examples, `(tasks, candidates)`."""
        terms = evidence(shares, counts)
        added: Array = np.einsum("tck,k->tc", terms, self.trust)
        return self.prior(inputs) + added

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Ranker:
        """Of a file's values."""
        names = ("centre", "scale", "weights", "trust")
        arrays = {name: np.array(values[name], float) for name in names}
        return Ranker(tuple(values["candidates"]), average=values["average"], **arrays)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


def expanded(z: Array) -> Array:
    """An offset, the inputs, and all their products of two."""
    z = z.clip(-3, 3)
    upper = np.triu_indices(z.shape[1])
    products = (z[:, :, None] * z[:, None, :])[:, upper[0], upper[1]]
    return np.concatenate([np.ones((len(z), 1)), z, products], 1)


def evidence(shares: Array, counts: Array) -> Array:
    """`(tasks, candidates, 2)`: shares above their mean, as they are and times log of the count."""
    above = shares - shares.mean(1, keepdims=True)
    return np.stack([above, above * np.log1p(counts)[:, None]], -1) * (counts > 0)[:, None, None]


def shipped_ranker() -> Ranker:
    """The one that `benchmarks/ranker.py` has fitted."""
    return Ranker.of_dict(json.loads((files("kshot") / FILE).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        name: of the candidate, in words.
        learner: as a recipe names it.
        expected: accuracy above the mean of all candidates, by candidate.
        reason: in words.
    """

    name: str
    learner: Mapping[str, Any]
    expected: Mapping[str, float]
    reason: str


def choose(features: Tensor, y: Tensor, way: int) -> Choice:
    """The candidate that the shipped ranker expects most of.

    Args:
        features: `(examples, features)`, of the support.
        y: labels.
        way: classes.
    """
    ranker = shipped_ranker()
    shares, count = left_out_scores(features, y, way)
    inputs = descriptors(features, y, way)[None]
    gains = ranker.refined(inputs, shares[None], np.array([count]))[0]
    order = np.argsort(-gains)
    best, second = (ranker.candidates[i] for i in order[:2])
    rests = (
        f"{count} examples left out in turn and descriptors of the task"
        if count
        else "descriptors of the task alone, since one example per class leaves nothing to try on"
    )
    lead = 100 * (gains[order[0]] - gains[order[1]])
    reason = f"{best} is expected {lead:.1f} points above {second}, by {rests}"
    expected = {name: float(g) for name, g in zip(ranker.candidates, gains, strict=True)}
    return Choice(best, CANDIDATES[best], expected, reason)
