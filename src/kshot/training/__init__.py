"""Meta-train, keep, load."""

from kshot.training.pretraining import pretrain
from kshot.training.run import load_run
from kshot.training.state import History, Row
from kshot.training.train import meta_train

__all__ = ["History", "Row", "load_run", "meta_train", "pretrain"]
