"""Which encoder and method for these examples: ranked by what was learned over many tasks.

A ranker expects, by a few descriptors of a task as an encoder sees it, how many queries each
method recognises; it is fitted on meta-training episodes (benchmarks/ranker.py). Where a class has
two examples or more, what each method recognises of left-out examples refines that.
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

from kshot.estimators.leave_out import few_of_each, leave_one_out
from kshot.estimators.ready import build_head
from kshot.learners import MetaLearner, TaskShape
from kshot.training.config import Part

Array = NDArray[np.float64]

HEADS: dict[str, dict[str, Any]] = {
    "class means": {"name": "protonet"},
    "means of unit features": {"name": "simpleshot"},
    "logistic regression": {"name": "rfs"},
    "logistic regression, weak penalty": {"name": "rfs", "penalty": 0.1},
    "ridge regression": {"name": "r2d2"},
    "nearest neighbour": {"name": "nearest_neighbour"},
    "last layer, 10 steps": {"name": "fine_tuning", "fast": "last", "inner_steps": 10},
    "last layer, 50 steps": {"name": "fine_tuning", "fast": "last", "inner_steps": 50},
    "metric of tables": {"name": "set_metric"},
}
"""Methods that need no meta-training, or whose head comes with kshot, by their names in words."""

FILE = "shipped/ranker.json"

TYPICAL = 0.01
"""Of accuracies, squared: how far a task's may be from what its descriptors say."""

MOST = 500
"""Examples that a choice rests on, or two of each class where these are more."""

LEFT_OUT = 40
"""Examples that each method is tried on, at most: so that a choice takes seconds."""


def head_for(name: str, features: int, way: int, length: int) -> MetaLearner:
    """The method, on features."""
    return build_head(Part(**HEADS[name]), nn.Identity(), TaskShape((features,), way, length))


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
    """How each method answers examples that it was fitted without.

    Attributes:
        shares: that it recognises, in the order of `HEADS`.
        examples: that were left out in turn; 0 where no class has two.
    """

    shares: Array
    examples: int


def left_out_scores(features: Tensor, y: Tensor, way: int) -> LeftOutScores:
    """Try every method on 40 examples at most."""
    shares, count = [], 0
    for name in HEADS:
        learner = head_for(name, features.shape[1], way, len(y))
        rows, answers = leave_one_out(learner, features, y, way, most=LEFT_OUT)
        count = len(rows)
        shares.append(float((answers.argmax(1) == y[rows]).double().mean()) if count else 0.0)
    return LeftOutScores(np.array(shares), count)


@dataclass(frozen=True)
class Ranker:
    """How many queries each method is expected to recognise.

    Ridge regressions on the descriptors are the prior; what is recognised of left-out examples
    is added to it, the more the more examples there are.

    Attributes:
        heads: names of the methods, in the order of the outputs.
        centre: of the descriptors.
        scale: of the descriptors.
        level: `(terms,)`, for the mean over all methods; see `expanded` for the terms.
        gains: `(terms, heads)`, for each method above that mean.
        trust: `(2,)`, in what left-out examples say; see `evidence`.
    """

    heads: Sequence[str]
    centre: Array
    scale: Array
    level: Array
    gains: Array
    trust: Array

    def prior(self, inputs: Array) -> Array:
        """Expected accuracy `(tasks, heads)`, of descriptors `(tasks, inputs)`."""
        terms = expanded((inputs - self.centre) / self.scale)
        expected: Array = (terms @ self.level)[:, None] + terms @ self.gains
        return expected

    def refined(self, inputs: Array, shares: Array, counts: Array) -> Array:
        """The same, with the shares `(tasks, heads)` that were recognised of left-out examples."""
        prior = self.prior(inputs)
        terms, sure = evidence(prior, shares, counts)
        gaps = shares - shares.mean(1, keepdims=True) - prior + prior.mean(1, keepdims=True)
        refined: Array = prior + terms @ self.trust + sure * gaps
        return refined

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Ranker:
        """Of a file's values."""
        names = ("centre", "scale", "level", "gains", "trust")
        return Ranker(tuple(values["heads"]), *(np.array(values[name], float) for name in names))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}


def expanded(z: Array) -> Array:
    """An offset, the inputs, and all their products of two."""
    z = z.clip(-3, 3)
    upper = np.triu_indices(z.shape[1])
    products = (z[:, :, None] * z[:, None, :])[:, upper[0], upper[1]]
    return np.concatenate([np.ones((len(z), 1)), z, products], 1)


def evidence(prior: Array, shares: Array, counts: Array) -> tuple[Array, Array]:
    """What left-out examples say; zeros where there were none.

    Returns:
        How far the mean share of all methods is above the prior, and how far a method's share is
        above that mean, each weighed by how little it may err, `(tasks, heads, 2)`; and how sure
        it is that a method is off that mean: 0.5 at three standard errors, `(tasks, heads)`.
    """
    n = counts[:, None]
    mean = shares.mean(1, keepdims=True)
    likely = (mean * n + 1) / (n + 2)
    error = likely * (1 - likely) / np.maximum(n, 1)
    weight = (n > 0) * TYPICAL / (TYPICAL + error)
    common = np.broadcast_to(mean - prior.mean(1, keepdims=True), shares.shape)
    own = shares - mean
    off = (own**2 / error / 9) ** 2
    return np.stack([common * weight, own * weight], -1), (n > 0) * off / (1 + off)


def shipped_ranker() -> Ranker:
    """The one that `benchmarks/ranker.py` has fitted."""
    return Ranker.of_dict(json.loads((files("kshot") / FILE).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        encoder: that the examples are seen by; empty for vectors as they are.
        head: the method, in words.
        learner: the method as a recipe names it.
        expected: accuracy of each method behind each encoder.
        reason: in words.
    """

    encoder: str
    head: str
    learner: Mapping[str, Any]
    expected: Mapping[tuple[str, str], float]
    reason: str


def choose(views: Mapping[str, Tensor], y: Tensor, way: int) -> Choice:
    """The encoder and the method that the shipped ranker expects most of.

    Args:
        views: `(examples, features)` of the support, by encoder.
        y: labels.
        way: classes.
    """
    ranker = shipped_ranker()
    rows = few_of_each(y, max(MOST, 2 * way))
    y = y[rows]
    expected: dict[tuple[str, str], float] = {}
    count = 0
    for encoder, seen in views.items():
        features = seen[rows]
        shares, count = left_out_scores(features, y, way)
        inputs = descriptors(features, y, way)[None]
        found = ranker.refined(inputs, shares[None], np.array([count]))[0]
        expected |= {(encoder, head): float(v) for head, v in zip(ranker.heads, found, strict=True)}
    best, second = sorted(expected, key=lambda pair: -expected[pair])[:2]
    rests = (
        f"{count} examples left out in turn and descriptors of the task"
        if count
        else "descriptors of the task alone, since one example per class leaves nothing to try on"
    )
    lead = 100 * (expected[best] - expected[second])
    ahead = f"{lead:.1f} points above" if lead >= 0.05 else "as good as"
    reason = f"{_called(best)} is expected {ahead} {_called(second)}, by {rests}"
    within = {pair: min(max(v, 0.0), 1.0) for pair, v in expected.items()}
    return Choice(*best, HEADS[best[1]], within, reason)


def _called(pair: tuple[str, str]) -> str:
    encoder, head = pair
    return f"{head} on {encoder}" if encoder else head
