"""Tasks of any way and shot, as natural as the classes' sizes: the rule of Meta-Dataset.

Triantafillou et al. 2020, "Meta-Dataset: a dataset of datasets for learning to learn from few
examples", section 3.2 and its appendix on sampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_SUPPORT = 500
"""Support examples of a task, at most."""

MOST_PER_CLASS = 100
"""What a class adds to the size of a support set, at most; its own share of it may be larger."""

SPREAD = 2.0
"""A class weighs from 1 / SPREAD to SPREAD times its size when a support set is shared out."""


def any_shots(
    sizes: NDArray[np.int64], query: int, unit: float, units: NDArray[np.float64]
) -> tuple[NDArray[np.int64], int]:
    """The shot of each class, and the queries that every class gets.

    Args:
        sizes: examples of each class of the task, at least 2.
        query: queries per class where no class is small; half the smallest class at most.
        unit: in [0, 1); decides how large the support set is (1 - beta in the paper).
        units: `(way,)`, in [0, 1); decide how the classes share it (alpha in the paper).
    """
    queries = min(query, int(sizes.min()) // 2)
    left = sizes - queries
    wanted = np.ceil((1 - unit) * np.minimum(left, MOST_PER_CLASS)).sum()
    support = min(wanted, MOST_SUPPORT)
    # exp(alpha) with alpha uniform in [-log SPREAD, log SPREAD)
    weights = sizes * SPREAD ** (2 * units - 1)
    shots = np.floor(weights / weights.sum() * (support - len(sizes))) + 1
    return np.minimum(shots.astype(np.int64), left), queries
