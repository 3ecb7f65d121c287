"""R2-D2: ridge regression as a head that is solved, not trained (Bertinetto et al. 2019)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from kshot.errors import ConfigError
from kshot.functional import masked_logits, ridge_weights
from kshot.learners.base import Head, MetaLearner, TaskKind, TaskShape
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class RidgeWeights(NamedTuple):
    """The state: W `(tasks, features + 1, *values)`, the offset last, and the classes present."""

    weights: Tensor
    present: Tensor | None


class RidgeHead(Head):
    """Ridge regression from embeddings to one-hot labels or values, in closed form."""

    def __init__(self, penalty: float, scale: float | None) -> None:
        super().__init__()
        for name, value in (("penalty", penalty), ("scale", scale)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value} must be greater than 0, and finite.")
        self.log_penalty = nn.Parameter(torch.tensor(math.log(penalty)))
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(math.log(scale)))

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> RidgeWeights:
        """Solve each task; padding rows are zero and weigh nothing."""
        real = support.real.unsqueeze(-1)
        x = torch.cat([support.x, torch.ones_like(support.x[..., :1])], -1) * real
        if support.y.is_floating_point():
            y = support.y.flatten(2) * real
            weights = ridge_weights(x, y, self.log_penalty.exp())
            return RidgeWeights(weights.unflatten(2, support.y.shape[2:]), None)
        one_hot = support.one_hot(support.x.dtype)
        return RidgeWeights(ridge_weights(x, one_hot, self.log_penalty.exp()), support.present())

    def predict(self, state: RidgeWeights, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)` or values `(tasks, queries, *values)`."""
        w = state.weights.flatten(2)
        output: Tensor = x @ w[:, :-1] + w[:, -1:]
        if self.log_scale is not None:
            output = self.log_scale.exp() * output
        if state.present is None:
            values: Tensor = output.unflatten(2, state.weights.shape[2:])
            return values
        return masked_logits(output, state.present)


class R2D2(MetaLearner):
    """R2-D2: embeddings from which a ridge regression, solved in closed form, answers.

    The head is the exact solution for the support; meta-training differentiates through it and
    shapes the embedding, the penalty, and, for classes, a factor on the answers. Its cost grows
    with the support's size, not with the embedding's.

        W = X' (X X' + lambda I)^-1 Y          (X with a column of ones; Y one-hot or values)
        f(x) = alpha x W

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`.
        penalty: lambda at the start; learned.
        scale: alpha at the start; learned. None for values, whose scale is their own.
        normalization: where the encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        The authors also add a learned number to all logits, which a softmax does not see. Their
        code divides X by the root of the support's size and keeps lambda at 50; here lambda is
        learned, as in the paper. They have no regression.

    Example:
        >>> import kshot
        >>> learner = kshot.R2D2(kshot.nn.MLP(1), scale=None)
        >>> waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=10), 0, [0])
        >>> learner.adapt(waves.support)(waves.query.x).shape
        torch.Size([1, 15, 1])

    Reference:
        @inproceedings{bertinetto2019meta,
          title={Meta-learning with Differentiable Closed-form Solvers},
          author={Bertinetto, Luca and Henriques, Joao F. and Torr, Philip and Vedaldi, Andrea},
          booktitle={International Conference on Learning Representations}, year={2019}}
    """

    family: ClassVar[str] = "closed form"
    fast: ClassVar[str] = "weights of a ridge regression"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification", "regression")

    def __init__(
        self,
        encoder: nn.Module,
        *,
        penalty: float = 1.0,
        scale: float | None = 1.0,
        normalization: Normalization = "joint",
    ) -> None:
        super().__init__(encoder, RidgeHead(penalty, scale), normalization=normalization)

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Values keep their own scale."""
        return cls(encoder, **({} if shape.way else {"scale": None}) | options)
