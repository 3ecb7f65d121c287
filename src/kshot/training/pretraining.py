"""Supervised pre-training: the first stage of transfer."""

from __future__ import annotations

from typing import Any

from kshot.datasets import Dataset, Mixture, Split
from kshot.episodes import EpisodeSpec
from kshot.errors import ConfigError
from kshot.learners.supervised import SupervisedLearner
from kshot.training.state import History
from kshot.training.train import meta_train
from kshot.training.validation import default_validation

MOST_WAYS = 64
"""Classes in a batch, by default: of more, each batch has some."""


def pretrain(
    learner: SupervisedLearner, data: Dataset | Split | Mixture, *, shot: int = 2, **options: Any
) -> History:
    """Train a learner's encoder to classify the base classes, in place; keep its best weights.

    A batch has `shot` images of each class, or of 64 classes if there are more; `meta_batch` of
    them make a step. Best is judged by few-shot episodes of the split `val`, by the learner's own
    way of fitting a new last layer.

    Args:
        learner: such as `kshot.Baseline`.
        data: a data set (its splits `train` and `val` are used), or a split.
        shot: images of each class in a batch.
        options: of `kshot.meta_train`.

    Raises:
        ConfigError: for a learner that is not trained so, or impossible settings.
    """
    if not isinstance(learner, SupervisedLearner):
        raise ConfigError(
            f"{type(learner).__name__} is not trained by classification: pretrain a "
            "kshot.Baseline or kshot.BaselinePlusPlus, and meta-train this one from its encoder."
        )
    source = data["train"] if isinstance(data, Dataset) else data
    if not isinstance(source, (Split, Mixture)):
        raise ConfigError(f"{source.name} has no classes to learn: give a data set of classes.")
    way = min(MOST_WAYS, *(len(split.sizes) for split in source.sources))
    if isinstance(data, Dataset) and "val" in data.splits:
        most = int(learner.head.net.out_features)  # type: ignore[arg-type]
        options = {"validation": default_validation(data["val"], EpisodeSpec(most)), **options}
    return meta_train(learner, data, **{"way": way, "shot": shot, "query": 0, **options})
