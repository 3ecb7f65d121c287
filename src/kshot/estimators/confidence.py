"""Temperature and threshold of a fitted classifier, and what they rest on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from kshot.errors import InputError
from kshot.estimators.leave_out import leave_class_out, leave_one_out
from kshot.evaluation.calibration import Calibration
from kshot.evaluation.confidence import familiarity, fit_temperature
from kshot.learners import MetaLearner
from kshot.types import Features

FEW = 20
"""Examples below which an estimate from the support alone is little more than a guess."""


HUGE = 1e36
"""Beyond any temperature or threshold."""


class Confidence(NamedTuple):
    """How a classifier's logits become probabilities, and when it answers "unknown".

    Attributes:
        temperature: that divides the logits.
        threshold: the familiarity below which an example is of no known class; None: all are known.
        basis: what both rest on, in words.
    """

    temperature: float
    threshold: float | None
    basis: str

    @staticmethod
    def of_dict(values: Mapping[str, Any]) -> Confidence:
        """Of a file's values.

        Raises:
            ValueError: if they are impossible.
        """
        found = Confidence(**values)
        numbers = [found.temperature] + ([] if found.threshold is None else [found.threshold])
        real = all(isinstance(v, (int, float)) and abs(v) < HUGE for v in numbers)
        if not (real and found.temperature > 1 / HUGE):
            raise ValueError(f"a confidence of {found.temperature!r:.40}, {found.threshold!r:.40}")
        return found


def measured(
    calibration: Calibration, y: Tensor, way: int, false_accepts: float | None
) -> Confidence:
    """By a calibration on meta-validation, at the task's way and its mean shot."""
    spot = calibration.at(way, len(y) / way)
    threshold = None if false_accepts is None else spot.threshold(false_accepts)
    return Confidence(spot.temperature, threshold, f"episodes of {calibration.source}")


def estimated(
    learner: MetaLearner, features: Features, y: Tensor, way: int, false_accepts: float | None
) -> Confidence:
    """By the support alone: each example left out for the temperature, each class for strangers.

    Warns where that is few.

    Raises:
        InputError: for a threshold without strangers, from two classes.
    """
    if false_accepts is not None and way < 3:
        raise InputError(
            "a threshold for strangers needs 3 classes, one of which is left out in turn, or a "
            "learner that kshot calibrate has measured."
        )
    rows, logits = leave_one_out(learner, features, y, way)
    count = len(rows)
    temperature = fit_temperature(logits, y[rows]) if count else 1.0
    if count < FEW:
        warnings.warn(
            f"the confidence rests on {count} examples left out in turn"
            + (" (no class has a second one)" if count == 0 else "")
            + ", which is too few to be believed: give more, or a learner that kshot calibrate has "
            "measured.",
            stacklevel=4,
        )
    threshold = None
    if false_accepts is not None:
        strangers = familiarity(leave_class_out(learner, features, y, way))
        threshold = float(np.quantile(strangers.numpy(), 1 - false_accepts))
    return Confidence(temperature, threshold, f"{count} of the examples themselves, left out")
