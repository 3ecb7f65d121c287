"""How far a probability can be believed, and when to answer "unknown"."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BINS = 15
"""Of the expected calibration error, as in Guo et al. 2017."""


class Reliability(NamedTuple):
    """How right the answers of each confidence are.

    Attributes:
        confidence: mean probability of the answers in each bin.
        accuracy: share of right answers in it.
        share: of all answers that are in it.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, equation 5)."""
        return float((self.share * np.abs(self.confidence - self.accuracy)).sum())


def reliability(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Reliability:
    """The answers' confidence beside their accuracy, in 15 bins of equal width.

    Args:
        logits: `(answers, way)`.
        labels: `(answers,)`.
        temperature: that divides the logits.
    """
    confidence, answer = torch.softmax(logits.double() / temperature, -1).max(-1)
    right = (answer == labels).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    count = torch.bincount(bins, minlength=BINS).double()
    some = count > 0
    sums = [torch.bincount(bins, weights=v, minlength=BINS) for v in (confidence, right)]
    means = [np.asarray((s / count)[some]) for s in sums]
    return Reliability(means[0], means[1], np.asarray((count / count.sum())[some]))


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that makes the labels most likely (Guo et al. 2017, section 4.2).

    The loss is convex in 1 / T; its minimum is found by golden section on log T.
    """
    logits = logits.double()

    def loss(log: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log), labels))

    low, high, ratio = math.log(1e-3), math.log(1e5), (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def familiarity(logits: Tensor) -> Tensor:
    """How near a query is to what the learner knows, `(answers,)`; strangers have less.

    The greatest logit (Hendrycks et al. 2022): of prototypes, minus the squared distance to the
    nearest one.
    """
    return logits.double().max(-1).values
