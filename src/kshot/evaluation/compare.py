"""Two methods on the same episodes: what matters is the difference within each episode."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kshot.errors import EpisodeError
from kshot.evaluation.record import Result, mean_interval, scale, without_nan

Verdict = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class Difference:
    """How far a method is from another one on the same episodes.

    Attributes:
        name: of the method.
        reference: what it is compared with.
        metric: `accuracy` (0 to 1) or `mse`.
        mean: of the per-episode differences, method minus reference.
        interval: half-width of their 95 % interval.
        episodes: their number.
    """

    name: str
    reference: str
    metric: str
    mean: float
    interval: float
    episodes: int

    @property
    def verdict(self) -> Verdict:
        """`better` or `worse` where the interval excludes 0."""
        if not abs(self.mean) > self.interval:
            return "not told apart"
        return "better" if (self.mean > 0) == (self.metric == "accuracy") else "worse"

    def as_dict(self) -> dict[str, Any]:
        """The record as it is stored."""
        return without_nan({**asdict(self), "verdict": self.verdict})

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "not finite"
        factor, digits, _ = scale(self.metric)
        return f"{factor * self.mean:+.{digits}f} ± {factor * self.interval:.{digits}f}"


def paired_difference(result: Result, reference: Result) -> Difference:
    """The mean of the per-episode differences, with its 95 % interval `1.96 s / sqrt(n)`.

    Easy and hard episodes are so for both methods and cancel, so that the interval is usually much
    narrower than those of the two scores.

    Args:
        result: of `evaluate`.
        reference: of `evaluate`, on the same episodes; it is what is subtracted.

    Raises:
        EpisodeError: if they are not of the same episodes and metric.
    """
    if (result.episode_hash, result.metric) != (reference.episode_hash, reference.metric):
        raise EpisodeError(
            f"{result.name} was scored by {result.metric} on the episodes {result.episode_hash}, "
            f"but {reference.name} by {reference.metric} on {reference.episode_hash}: a paired "
            "difference needs the same episodes; evaluate both with the same arguments."
        )
    mean, interval = mean_interval(np.subtract(result.values, reference.values))
    return Difference(result.name, reference.name, result.metric, mean, interval, result.episodes)
