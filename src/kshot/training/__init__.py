"""Meta-train, keep, load."""

from kshot.training.run import load_run
from kshot.training.train import History, Row, meta_train

__all__ = ["History", "Row", "load_run", "meta_train"]
