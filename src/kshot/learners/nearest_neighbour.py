"""1-nearest-neighbour: the baseline that every table should carry."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from kshot.functional import masked_logits, squared_distances
from kshot.learners.base import Head, MetaLearner
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class Neighbours(NamedTuple):
    """The state: the support itself, its labels, which examples are real, the classes present."""

    z: Tensor
    y: Tensor
    real: Tensor
    present: Tensor


class NeighbourHead(Head):
    """Logits are negative squared distances to the nearest example of each class."""

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Neighbours:
        """Keep the support."""
        return Neighbours(support.x.flatten(2), support.y, support.real, support.present())

    def predict(self, state: Neighbours, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        least = torch.finfo(x.dtype).min
        near = -squared_distances(x.flatten(2), state.z)
        near = near.masked_fill(~state.real.unsqueeze(1), least)
        per_class = near.new_full((*near.shape[:2], state.present.shape[1]), least)
        per_class = per_class.scatter_reduce(2, state.y.unsqueeze(1).expand_as(near), near, "amax")
        return masked_logits(per_class, state.present)


class NearestNeighbour(MetaLearner):
    """1-nearest-neighbour on the encoder's output; on raw inputs by default.

    A query gets the class of the nearest support example. There is nothing to meta-train unless
    an encoder is given.

        y(x) = y_j,  j = argmin_i ||f(x) - f(x_i)||^2

    Args:
        encoder: f; `torch.nn.Flatten()` compares raw inputs.
        normalization: where the encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        None.

    Example:
        >>> import kshot
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> kshot.NearestNeighbour().adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @article{cover1967nearest,
          title={Nearest neighbor pattern classification},
          author={Cover, Thomas and Hart, Peter},
          journal={IEEE Transactions on Information Theory}, year={1967}}
    """

    family: ClassVar[str] = "baseline"
    fast: ClassVar[str] = "the support, kept and compared with"

    def __init__(
        self, encoder: nn.Module | None = None, *, normalization: Normalization = "joint"
    ) -> None:
        super().__init__(encoder or nn.Flatten(), NeighbourHead(), normalization=normalization)
