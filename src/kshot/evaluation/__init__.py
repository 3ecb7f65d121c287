"""Evaluate on frozen episodes, record, report."""

from kshot.evaluation.compare import Difference, paired_difference
from kshot.evaluation.embedding import embedded
from kshot.evaluation.protocol import as_protocol
from kshot.evaluation.record import Result, mean_interval, over_seeds, show
from kshot.evaluation.scoring import evaluate, predictions, score_episodes

__all__ = [
    "Difference",
    "Result",
    "as_protocol",
    "embedded",
    "evaluate",
    "mean_interval",
    "over_seeds",
    "paired_difference",
    "predictions",
    "score_episodes",
    "show",
]
