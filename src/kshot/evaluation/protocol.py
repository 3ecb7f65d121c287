"""What a score may claim: inductive or transductive, and of classes not seen in meta-training."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from kshot.datasets import Mixture, Split
from kshot.datasets.sources import Source
from kshot.errors import ConfigError
from kshot.learners.base import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.nn.norm import Normalization


def seen_classes(trained: Sequence[Source], tested: Source) -> list[str]:
    """Classes to be tested that bear the name of one in a training, or of a variant of one.

    Names are compared as paths: `Greek/character01/rot090` is a variant of `Greek/character01`.
    """
    known = {name for source in trained for label in _labels(source) for name in _ancestry(label)}
    return [label for label in _labels(tested) if known.intersection(_ancestry(label))]


def _labels(source: Source) -> list[str]:
    if not isinstance(source, (Split, Mixture)):
        return []
    return [str(label) for split in source.sources for label in split.classes]


def _ancestry(label: str) -> list[str]:
    """The name and, of a path, what it is a variant of."""
    parts = label.split("/")
    return ["/".join(parts[: i + 1]) for i in range(min(1, len(parts) - 1), len(parts))]


def as_protocol(learner: MetaLearner, transductive: bool) -> MetaLearner:
    """The learner as asked, by the statistics of its batch normalisation.

    Transductive is `normalization="task"`, where queries are normalised together; inductive is
    `"support"`, the support's statistics for the queries too. A learner that is as asked already
    is given back; otherwise a copy that shares its weights, and the learner stays as it was.

    Args:
        learner: any.
        transductive: whether queries may influence each other's answers.

    Raises:
        ConfigError: if it is not batch normalisation that makes the learner what it is.
    """
    if learner.transductive == transductive:
        return learner
    name = type(learner).__name__
    if learner.head.transductive:
        raise ConfigError(
            f"{name} is transductive by definition, it learns from the queries: "
            "evaluate it without --inductive."
        )
    if not learner.normalizes:
        raise ConfigError(
            f"this {name} has no batch normalisation, through which alone queries could influence "
            "each other: evaluate it without --transductive."
        )
    policy: Normalization = "task" if transductive else "support"
    twin = copy.copy(learner)
    twin.normalization = policy
    if isinstance(learner.head, InnerLoop):
        head = copy.copy(learner.head)
        head.normalization = policy
        twin._modules = {**learner._modules, "head": head}
    return twin
