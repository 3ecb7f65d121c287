"""Conditional Neural Processes (Garnelo et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import ConfigError, EpisodeError
from kshot.learners.base import Head, MetaLearner, TaskKind, TaskShape
from kshot.nn import MLP
from kshot.types import Episode, Examples, Features, Gaussian


class CNPHead(Head):
    """Mean of the encoded (x, y) pairs; decoded, with a new x, to a Gaussian."""

    def __init__(
        self,
        x_size: int,
        y_shape: tuple[int, ...],
        hidden: Sequence[int],
        decoder: Sequence[int],
        std_floor: float,
    ) -> None:
        super().__init__()
        if not 0 <= std_floor < 1:
            raise ConfigError(f"std_floor={std_floor} must be at least 0 and below 1.")
        self.std_floor = std_floor
        self.y_shape = y_shape
        values = int(np.prod(y_shape))
        self.encode = nn.Sequential(
            MLP(x_size + values, hidden=hidden[:-1]), nn.Linear(hidden[-2], hidden[-1])
        )
        self.decode = nn.Sequential(
            MLP(x_size + hidden[-1], hidden=decoder), nn.Linear(decoder[-1], 2 * values)
        )

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Tensor:
        """r, `(tasks, features)`."""
        if support.y.shape[2:] != self.y_shape:
            raise EpisodeError(
                f"this CNP was built for values of shape {tuple(self.y_shape)}, but those of the "
                f"tasks have {tuple(support.y.shape[2:])}."
            )
        pairs = torch.cat([support.x.flatten(2), support.y.flatten(2)], -1)
        r = self.encode(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])
        real = support.real.unsqueeze(-1).to(r.dtype)
        mean: Tensor = (r * real).sum(1) / real.sum(1)
        return mean

    def predict(self, state: Tensor, x: Features, mask: Tensor | None = None) -> Gaussian:
        """Mean and standard deviation, each `(tasks, queries, *values)`."""
        x = x.flatten(2)
        joined = torch.cat([x, state.unsqueeze(1).expand(-1, x.shape[1], -1)], -1)
        mean, raw = self.decode(joined.flatten(0, 1)).unflatten(0, joined.shape[:2]).chunk(2, -1)
        std = self.std_floor + (1 - self.std_floor) * F.softplus(raw)
        shape = (*x.shape[:2], *self.y_shape)
        return Gaussian(mean.reshape(shape), std.reshape(shape))


class CNP(MetaLearner):
    """Conditional Neural Process: one pass from a set of points to a distribution over functions.

    Every support point is encoded with its value, the codes are averaged, and a decoder turns
    the average and a new x into a mean and a standard deviation. Nothing is optimised at
    meta-test, and the answer says how sure it is.

        r = mean_i enc(x_i, y_i);   (mu, s) = dec(x, r);   sigma = 0.1 + 0.9 softplus(s)
        loss = -log N(y | mu, sigma) on the queries *and* the support

    Args:
        x_size: size of one flattened input.
        y_shape: shape of one value.
        hidden: layer sizes of the encoder, r's size last.
        decoder: layer sizes of the decoder, without its output.
        std_floor: least standard deviation; the authors' 0.1 is too much for noiseless functions.

    Shapes:
        support and query `(tasks, examples, *features)`; mean and std
        `(tasks, queries, *y_shape)`.

    Deviations:
        The size of the support is fixed in meta-training; the paper varies it.

    Example:
        >>> import kshot
        >>> waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=10), 0, [0])
        >>> mean, std = kshot.CNP(1).adapt(waves.support)(waves.query.x)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([1, 15, 1]), True)

    Reference:
        @inproceedings{garnelo2018cnp,
          title={Conditional Neural Processes},
          author={Garnelo, Marta and Rosenbaum, Dan and Maddison, Chris J. and Ramalho, Tiago and
                  Saxton, David and Shanahan, Murray and Teh, Yee Whye and Rezende, Danilo J. and
                  Eslami, S. M. Ali},
          booktitle={International Conference on Machine Learning}, year={2018}}
    """

    family: ClassVar[str] = "amortised"
    fast: ClassVar[str] = "one code per function"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("regression",)

    def __init__(
        self,
        x_size: int,
        *,
        y_shape: tuple[int, ...] = (1,),
        hidden: Sequence[int] = (128, 128, 128, 128),
        decoder: Sequence[int] = (128, 128),
        std_floor: float = 0.1,
    ) -> None:
        super().__init__(nn.Identity(), CNPHead(x_size, y_shape, hidden, decoder, std_floor))

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the tasks' inputs and values; it brings its own encoder."""
        if not isinstance(encoder, nn.Identity):
            raise ConfigError(
                "CNP brings its own encoder, of pairs (x, y): leave encoder.name at 'none' and set "
                "learner.hidden."
            )
        return cls(int(np.prod(shape.x_shape)), y_shape=shape.y_shape, **options)

    def loss(self, episode: Episode) -> Tensor:
        """Negative log-likelihood of the queries and, as published, of the support itself."""
        self.check(episode.support)
        support, query = episode.support, episode.query
        state = self.head.fit(support, key=episode.key)
        targets = Examples(
            torch.cat([support.x, query.x], 1),
            torch.cat([support.y, query.y], 1),
            torch.cat([support.real, query.real], 1),
        )
        return self.head.loss(self.head.predict(state, targets.x, targets.mask), targets)
