"""SimpleShot (Wang et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import unknown
from kshot.learners.base import TaskShape
from kshot.learners.protonet import PrototypeHead, Prototypes
from kshot.learners.transfer import TransferLearner
from kshot.nn import output_size
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features

Transform = Literal["un", "l2n", "cl2n"]


class CentroidHead(PrototypeHead):
    """Nearest class mean of transformed embeddings."""

    mean: Tensor

    def __init__(self, features: int, transform: Transform) -> None:
        super().__init__()
        if transform not in get_args(Transform):
            raise unknown("transform", transform, get_args(Transform))
        self.transform = transform
        self.register_buffer("mean", torch.zeros(features))

    def _transformed(self, z: Tensor) -> Tensor:
        if self.transform == "cl2n":
            z = z - self.mean
        return z if self.transform == "un" else F.normalize(z, dim=-1)

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Prototypes:
        """Average each class."""
        return super().fit(support.with_x(self._transformed(support.x)), key=key)

    def predict(self, state: Prototypes, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        return super().predict(state, self._transformed(x), mask)


class SimpleShot(TransferLearner):
    """SimpleShot: the nearest class mean of centred, normalised features of a pretrained encoder.

    Nothing is meta-trained. The mean embedding of the base classes is taken off, what remains is
    brought to length 1, and a query belongs to the class whose mean is nearest.

        z(x) = (f(x) - m) / ||f(x) - m||,   m the mean of f over the base classes      (CL2N)
        y(x) = argmin_k || z(x) - mean of z over S_k ||^2

    Args:
        encoder: f, pretrained; it stays as it is.
        features: size of the encoder's output.
        transform: `cl2n` (centred and normalised), `l2n` (normalised) or `un` (neither). Until
            `observe` has seen base classes, as `kshot train` makes it, m is 0: `cl2n` is `l2n`.
        normalization: `frozen`: the statistics of the pre-training.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        None at meta-test; the authors' pre-training is any classifier's here (`kshot pretrain`).

    Example:
        >>> import kshot
        >>> learner = kshot.SimpleShot(kshot.nn.Conv4(), features=64)
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @article{wang2019simpleshot,
          title={SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning},
          author={Wang, Yan and Chao, Wei-Lun and Weinberger, Kilian Q. and van der Maaten,
                  Laurens},
          journal={arXiv preprint arXiv:1911.04623}, year={2019}}
    """

    fast: ClassVar[str] = "class means of centred features"
    observes: ClassVar[bool] = True

    head: CentroidHead

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        transform: Transform = "cl2n",
        normalization: Normalization = "frozen",
    ) -> None:
        super().__init__(encoder, CentroidHead(features, transform), normalization=normalization)

    def observe(self, base: Tensor) -> None:
        """Take the mean of the base classes' embeddings `(examples, features)`."""
        self.head.mean.copy_(base.mean(0))

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the encoder."""
        return cls(encoder, features=output_size(encoder, shape.x_shape), **options)
