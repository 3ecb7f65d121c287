"""Evaluate on frozen episodes, record, report."""

from kshot.evaluation.record import Result, mean_interval, show
from kshot.evaluation.scoring import embedded, evaluate, predictions, score_episodes

__all__ = [
    "Result",
    "embedded",
    "evaluate",
    "mean_interval",
    "predictions",
    "score_episodes",
    "show",
]
