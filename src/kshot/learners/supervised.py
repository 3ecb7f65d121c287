"""Learners whose encoder is trained by ordinary classification of the base classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kshot.errors import ConfigError, EpisodeError
from kshot.functional import mean_loss
from kshot.learners.base import MetaLearner, example_losses
from kshot.learners.inner_loop import InnerLoop
from kshot.nn.norm import Normalization
from kshot.types import Episode


class SupervisedLearner(MetaLearner):
    """Meta-training classifies each example among all classes of the split; tasks come later.

    A batch is an episode: of all classes, for batches with equally many examples of each. Its
    support and its query are trained on alike, and no query is needed.

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`.
        head: what learns from a support set, at meta-test.
        classifier: from embeddings to the base classes; it is left behind after meta-training.
        normalization: where the encoder's batch statistics come from.
    """

    needs_query: ClassVar[bool] = False

    head: InnerLoop

    def __init__(
        self,
        encoder: nn.Module,
        head: InnerLoop,
        classifier: nn.Linear,
        *,
        normalization: Normalization,
    ) -> None:
        super().__init__(encoder, head, normalization=normalization)
        self.classifier = classifier

    def loss(self, episode: Episode) -> Tensor:
        """Cross-entropy over the base classes, a scalar.

        Raises:
            EpisodeError: if the examples' classes are unknown, or more than the classifier's.
        """
        self.check(episode.support)
        if episode.classes is None:
            raise EpisodeError(
                f"{type(self).__name__} classifies the base classes, but this episode does not "
                "know its own: draw it from a split of classes."
            )
        if int(episode.classes.max()) >= self.classifier.out_features:
            raise EpisodeError(
                f"class {int(episode.classes.max())}, but the classifier was built for "
                f"{self.classifier.out_features} (0 to {self.classifier.out_features - 1})."
            )
        parts = self.embed_episode(episode)
        z, y, real = (
            torch.cat(found, 1)
            for found in zip(
                *((part.x, episode.classes.gather(1, part.y), part.real) for part in parts),
                strict=True,
            )
        )
        return mean_loss(example_losses(self.classifier(z), y), real)


def base_classes(name: str, classes: int) -> int:
    """The number of base classes, if there are any; ConfigError otherwise."""
    if classes < 2:
        raise ConfigError(
            f"{name} learns to classify the classes of the training split, of which {classes} are "
            "known: build it with classes=N, or train it on a data set of classes."
        )
    return classes
