"""Reptile (Nichol, Achiam and Schulman 2018)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kshot.engine import Adam, Engine
from kshot.learners.inner_loop import InnerLoop, NetworkLearner
from kshot.nn.norm import Normalization
from kshot.types import Episode


class Reptile(NetworkLearner):
    """Reptile: move the starting point towards where training on each task ends.

    Each task trains the whole network for some mini-batches of its support; there is no query in
    meta-training and no derivative of the inner loop. The outer step goes a part of the way to
    the mean of the tasks' weights.

        phi_i  = the weights after inner_steps steps of Adam from theta, on task i
        theta <- theta + epsilon * mean_i(phi_i - theta)

    The loss is 1/2 ||theta - stop(phi_i)||^2, whose plain SGD with rate epsilon is this step.

    Args:
        net: from `(rows, *features)` to `(rows, way)` logits or `(rows, *values)`.
        inner_lr: Adam's learning rate in the inner loop (beta_1 = 0, as the authors).
        inner_steps: mini-batches per task in meta-training.
        test_steps: mini-batches per task at meta-test.
        inner_batch: examples per mini-batch, from reshuffled passes over the support.
        normalization: `task` (transductive), `support` or `frozen`.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        Adam's moments start at zero for each task (the authors' persist over training tasks). The
        outer step is the paper's only under `optimizer="sgd"` with `lr` as epsilon; meta-test uses
        the same `inner_batch` as meta-training (the authors 5 at 5-way).

    Example:
        >>> import kshot
        >>> from torch import nn
        >>> learner = kshot.Reptile(nn.Sequential(kshot.nn.MLP(1), nn.Linear(40, 1)))
        >>> waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=10), 0, [0])
        >>> learner.adapt(waves.support)(waves.query.x).shape
        torch.Size([1, 15, 1])

    Reference:
        @article{nichol2018reptile,
          title={On First-Order Meta-Learning Algorithms},
          author={Nichol, Alex and Achiam, Joshua and Schulman, John},
          journal={arXiv preprint arXiv:1803.02999}, year={2018}}
    """

    order_free = False  # mini-batches are drawn by position
    needs_query: ClassVar[bool] = False

    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 1e-3,
        inner_steps: int = 5,
        test_steps: int = 50,
        inner_batch: int = 10,
        normalization: Normalization = "task",
        engine: Engine = "auto",
    ) -> None:
        head = InnerLoop(
            net,
            Adam(inner_lr, betas=(0.0, 0.999)),
            steps=inner_steps,
            test_steps=test_steps,
            gradient="none",
            normalization=normalization,
            batch_size=inner_batch,
            engine=engine,
        )
        super().__init__(head)

    def loss(self, episode: Episode) -> Tensor:
        """Half the squared distance to the tasks' weights, mean over tasks; queries are unused."""
        self.check(episode.support)
        trained = self.head.fit(episode.support, key=episode.key).weights
        start = self.head.fast_weights()
        distances = [
            ((start[n] - phi.detach()) ** 2).flatten(1).sum(1) for n, phi in trained.items()
        ]
        return 0.5 * torch.stack(distances).sum(0).mean()
