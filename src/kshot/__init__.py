"""Meta-learning for PyTorch: learn, over many tasks, how to learn a new one from a few examples.

Names are imported when they are first used, so that `import kshot` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "ANIL": "learners.anil",
    "Baseline": "learners.baseline",
    "BaselinePlusPlus": "learners.baseline_plus_plus",
    "CNP": "learners.cnp",
    "MAML": "learners.maml",
    "MTL": "learners.mtl",
    "R2D2": "learners.ridge",
    "SNAIL": "learners.snail",
    "TIM": "learners.tim",
    "TaskFamily": "datasets",
    "Dataset": "datasets",
    "Episode": "types",
    "EpisodeSpec": "episodes",
    "Examples": "types",
    "FewShotClassifier": "estimators",
    "FewShotRegressor": "estimators",
    "FineTuning": "learners.fine_tuning",
    "FrozenEpisodes": "episodes",
    "MatchingNet": "learners.matching",
    "MetaBaseline": "learners.meta_baseline",
    "MetaLSTM": "learners.meta_lstm",
    "MetaLearner": "learners",
    "Mixture": "datasets",
    "NearestNeighbour": "learners.nearest_neighbour",
    "PMF": "learners.pmf",
    "ProtoNet": "learners.protonet",
    "RFS": "learners.rfs",
    "Reptile": "learners.reptile",
    "SetMetric": "learners.set_metric",
    "SimpleShot": "learners.simpleshot",
    "TipAdapter": "learners.tip_adapter",
    "draw": "episodes",
    "evaluate": "evaluation",
    "load": "datasets",
    "load_model": "estimators",
    "load_run": "training",
    "meta_train": "training",
    "pretrain": "training",
}
_MODULES = {
    "datasets",
    "engine",
    "episodes",
    "estimators",
    "errors",
    "functional",
    "learners",
    "nn",
    "testing",
}

__all__ = [*_WHERE, "__version__"]

if TYPE_CHECKING:
    from kshot.datasets import Dataset, Mixture, TaskFamily, load
    from kshot.episodes import EpisodeSpec, FrozenEpisodes, draw
    from kshot.estimators import FewShotClassifier, FewShotRegressor, load_model
    from kshot.evaluation import evaluate
    from kshot.learners import MetaLearner
    from kshot.learners.anil import ANIL
    from kshot.learners.baseline import Baseline
    from kshot.learners.baseline_plus_plus import BaselinePlusPlus
    from kshot.learners.cnp import CNP
    from kshot.learners.fine_tuning import FineTuning
    from kshot.learners.maml import MAML
    from kshot.learners.matching import MatchingNet
    from kshot.learners.meta_baseline import MetaBaseline
    from kshot.learners.meta_lstm import MetaLSTM
    from kshot.learners.mtl import MTL
    from kshot.learners.nearest_neighbour import NearestNeighbour
    from kshot.learners.pmf import PMF
    from kshot.learners.protonet import ProtoNet
    from kshot.learners.reptile import Reptile
    from kshot.learners.rfs import RFS
    from kshot.learners.ridge import R2D2
    from kshot.learners.set_metric import SetMetric
    from kshot.learners.simpleshot import SimpleShot
    from kshot.learners.snail import SNAIL
    from kshot.learners.tim import TIM
    from kshot.learners.tip_adapter import TipAdapter
    from kshot.training import load_run, meta_train, pretrain
    from kshot.types import Episode, Examples


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"kshot.{_WHERE[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"kshot.{name}")
    raise AttributeError(f"module 'kshot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
