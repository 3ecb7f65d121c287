"""Evaluate on frozen episodes, record, report."""

from kshot.evaluation.evaluate import evaluate, predictions, score_episodes
from kshot.evaluation.record import Result, mean_interval

__all__ = ["Result", "evaluate", "mean_interval", "predictions", "score_episodes"]
