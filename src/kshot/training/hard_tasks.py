"""The hard-task meta-batch: what was answered worst comes again (Sun et al. 2019, section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kshot.datasets import Mixture, Split
from kshot.datasets.sources import Source
from kshot.episodes import EpisodeSpec, draw
from kshot.episodes.spec import bounds
from kshot.errors import ConfigError
from kshot.learners.base import MetaLearner
from kshot.types import Episode, Examples, Gaussian, Output


class HardTasks:
    """Pools the class that each task answers worst; a full pool makes the next meta-batch.

    Args:
        source: of the training episodes.
        spec: of them.
        seed: of them.
        learner: what is trained.

    Attributes:
        pool: classes that wait, by their numbers in the source; part of the checkpoint.
        failures: `(classes,)`, how often each was the worst in this step; summed over processes.

    Raises:
        ConfigError: for tasks without classes, or a learner that answers no queries.
    """

    def __init__(self, source: Source, spec: EpisodeSpec, seed: int, learner: MetaLearner) -> None:
        if not isinstance(source, (Split, Mixture)):
            raise ConfigError(f"hard tasks are of classes, which {source.name} has not.")
        if type(learner).loss is not MetaLearner.loss:
            raise ConfigError(
                f"hard tasks need the answers to the queries, which {type(learner).__name__} does "
                "not train on: leave train.hard_tasks out."
            )
        self.source, self.spec, self.seed = source, spec, seed
        self.pool: list[int] = []
        self.failures = torch.zeros(sum(len(part.sizes) for part in source.sources))

    @property
    def full(self) -> bool:
        """Whether the pool has classes enough for the widest task."""
        return len(self.pool) >= bounds(self.spec.way)[1]

    def draw(self, index: Sequence[int]) -> Episode:
        """The next meta-batch: of the pool if it is full, else any."""
        return draw(self.source, self.spec, self.seed, index, prefer=self.pool if self.full else ())

    def watch(self, output: Output, query: Examples, classes: Tensor | None) -> None:
        """Count the class that each task answers worst."""
        assert classes is not None
        assert not isinstance(output, Gaussian)
        right = (output.argmax(-1) == query.y).to(output.dtype)
        one_hot = query.one_hot(output.dtype)
        accuracy = (one_hot * right.unsqueeze(-1)).sum(1) / one_hot.sum(1).clamp_min(1)
        worst = accuracy.masked_fill(one_hot.sum(1) == 0, 2.0).argmin(-1, keepdim=True)
        numbers = classes.gather(1, worst).flatten().cpu()
        self.failures += torch.bincount(numbers, minlength=len(self.failures))

    def settle(self) -> None:
        """After a step: a used pool is emptied, failures in ordinary tasks are pooled."""
        if self.full:
            self.pool = []
        else:
            self.pool = sorted({*self.pool, *self.failures.nonzero().flatten().tolist()})
        self.failures.zero_()
