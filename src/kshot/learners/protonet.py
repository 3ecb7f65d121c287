"""Prototypical Networks (Snell, Swersky and Zemel 2017)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from kshot.errors import ConfigError
from kshot.functional import class_means, cosine_similarity, masked_logits, prototypical_logits
from kshot.learners.base import Head, MetaLearner
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features

Distance = Literal["euclidean", "cosine"]


class Prototypes(NamedTuple):
    """The state: one mean per class, and which classes a task has."""

    means: Tensor
    present: Tensor


class PrototypeHead(Head):
    """Class means of the support; logits are negative distances to them."""

    def __init__(self, distance: Distance = "euclidean", *, scale: float | None = None) -> None:
        super().__init__()
        if distance not in ("euclidean", "cosine"):
            raise ConfigError(f"distance={distance!r} is neither 'euclidean' nor 'cosine'.")
        if scale is None and distance == "cosine":
            scale = 10.0
        if scale is not None and not 0 < scale < math.inf:
            raise ConfigError(f"scale={scale} must be greater than 0, and finite.")
        self.similarity = cosine_similarity if distance == "cosine" else prototypical_logits
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(math.log(scale)))

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Prototypes:
        """Average each class."""
        one_hot = support.one_hot(support.x.dtype)
        return Prototypes(class_means(support.x, one_hot), one_hot.sum(1) > 0)

    def predict(self, state: Prototypes, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        logits = self.similarity(x, state.means)
        if self.log_scale is not None:
            logits = self.log_scale.exp() * logits
        return masked_logits(logits, state.present)


class ProtoNet(MetaLearner):
    """Prototypical Networks: a class is the mean of its embedded examples.

    A query belongs to the class whose mean is nearest. Meta-training shapes the embedding so
    that this is right. Nothing is optimised at meta-test, so any way and shot will do, and
    meta-training with a higher way than at meta-test helps.

        c_k = 1/|S_k| * sum over S_k of f(x_i)
        p(y = k | x) = softmax_k( -||f(x) - c_k||^2 )

    Args:
        encoder: f, from `(rows, *features)` to `(rows, features)`.
        distance: `euclidean` (squared, the paper's choice) or `cosine`.
        scale: start of a learned factor on the logits. By default 10 with `cosine`, and none with
            `euclidean`, as in the paper; long embeddings, whose squared distances are large, learn
            sooner with one, such as 1 / features.
        normalization: `joint` as the authors ran it: one batch of support and query in
            meta-training, running statistics at meta-test (inductive).

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        None by default. The cosine form follows Chen et al. 2021 (Meta-Baseline), a factor on the
        squared distance Lee et al. 2019 (MetaOptNet), who divide by the features and learn a scale.

    Example:
        >>> import kshot
        >>> learner = kshot.ProtoNet(kshot.nn.Conv4())
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{snell2017prototypical,
          title={Prototypical Networks for Few-shot Learning},
          author={Snell, Jake and Swersky, Kevin and Zemel, Richard},
          booktitle={Advances in Neural Information Processing Systems}, year={2017}}
    """

    family: ClassVar[str] = "metric"
    fast: ClassVar[str] = "class means"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        distance: Distance = "euclidean",
        scale: float | None = None,
        normalization: Normalization = "joint",
    ) -> None:
        head = PrototypeHead(distance, scale=scale)
        super().__init__(encoder, head, normalization=normalization)
