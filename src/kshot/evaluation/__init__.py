"""Evaluate on frozen episodes, record, report."""

from kshot.evaluation.evaluate import embedded, evaluate, predictions, score_episodes
from kshot.evaluation.record import Result, mean_interval, show

__all__ = ["Result", "embedded", "evaluate", "mean_interval", "predictions", "score_episodes", "show"]
