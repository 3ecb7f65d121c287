"""Reptile (Nichol, Achiam and Schulman 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from kshot.engine import SGD, Adam, Engine, UpdateRule, Weights
from kshot.engine.inner import positive
from kshot.errors import ConfigError, unknown
from kshot.learners.inner_loop import Fast, InnerLoop, NetworkLearner, Sampling, fast_parameters
from kshot.nn.norm import Normalization
from kshot.types import Episode


class LastingAdam(nn.Module):
    """Adam with beta_1 = 0 whose second moments outlive the task, as in the authors' code.

    The tasks of a meta-batch start from the same moments and leave their mean.
    """

    count: Tensor

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.lr = positive("inner_lr", lr)
        self.beta, self.eps = 0.999, 1e-8
        self.names = {n: n.replace(".", "/") for n, _ in net.named_parameters()}
        for name, weight in net.named_parameters():
            self.register_buffer(self.names[name], torch.zeros_like(weight))
        self.register_buffer("count", torch.zeros(()))

    def init(self, fast: Weights) -> Weights:
        """The moments that the tasks before have left."""
        return {n: self.get_buffer(self.names[n]) for n in fast}

    def step(
        self, k: int, fast: Weights, grads: Weights, loss: Tensor, state: Weights
    ) -> tuple[Weights, Weights]:
        """One step along the gradient over the root of its corrected second moment."""
        second = {n: self.beta * v + (1 - self.beta) * grads[n] ** 2 for n, v in state.items()}
        correction = -torch.expm1((self.count + k + 1) * math.log(self.beta))  # 1 - beta^t
        moved = {
            n: w - self.lr * grads[n] / ((second[n] / correction).sqrt() + self.eps)
            for n, w in fast.items()
        }
        return moved, second

    @torch.no_grad()
    def remember(self, states: Weights, steps: int) -> None:
        """Keep the moments of a meta-batch's tasks after so many steps."""
        for name, moments in states.items():
            self.get_buffer(self.names[name]).copy_(moments.mean(0))
        self.count += steps


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
        inner_optimizer: `adam` (beta_1 = 0, as the authors) or `sgd`.
        inner_lr: its learning rate.
        inner_steps: mini-batches per task in meta-training.
        test_steps: mini-batches per task at meta-test.
        inner_batch: examples per mini-batch.
        test_batch: the same at meta-test; `inner_batch` by default.
        sampling: mini-batches are `cycle`, reshuffled passes over the support without repetition,
            or `replace`, each drawn anew from all of it.
        lasting_moments: Adam's moments pass from task to task, as in the authors' code.
        normalization: `task` (transductive), `single` (each query alone in one batch with the
            support, the authors' other evaluation), `support` or `frozen`.
        fast: what a task moves: `all`, the `last` layer, or an adapter such as `lora` and the last
            layer.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        By default Adam's moments start at zero for each task. With `lasting_moments` the tasks of a
        meta-batch start from the same moments and leave their mean, where the authors' tasks take
        turns. The outer step is the paper's only under `optimizer="sgd"` with `lr` as epsilon.

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

    family: ClassVar[str] = "gradient"
    fast: ClassVar[str] = "the network's weights"
    order_free = False  # mini-batches are drawn by position
    needs_query: ClassVar[bool] = False

    def __init__(
        self,
        net: nn.Module,
        *,
        inner_optimizer: Literal["adam", "sgd"] = "adam",
        inner_lr: float = 1e-3,
        inner_steps: int = 5,
        test_steps: int = 50,
        inner_batch: int = 10,
        test_batch: int | None = None,
        sampling: Sampling = "cycle",
        lasting_moments: bool = False,
        normalization: Normalization = "task",
        fast: Fast = "all",
        engine: Engine = "auto",
    ) -> None:
        rules: dict[str, Callable[[], UpdateRule]] = {
            "adam": lambda: Adam(inner_lr, betas=(0.0, 0.999)),
            "sgd": lambda: SGD(inner_lr),
        }
        if inner_optimizer not in rules:
            raise unknown("inner_optimizer", inner_optimizer, rules)
        if lasting_moments and inner_optimizer != "adam":
            raise ConfigError("lasting_moments=True needs inner_optimizer='adam': SGD has none.")
        moves = fast_parameters(net, fast)
        head = InnerLoop(
            net,
            LastingAdam(net, inner_lr) if lasting_moments else rules[inner_optimizer](),
            steps=inner_steps,
            test_steps=test_steps,
            gradient="none",
            fast=moves,
            normalization=normalization,
            batch_size=inner_batch,
            test_batch_size=test_batch,
            sampling=sampling,
            keep_rule_state=lasting_moments,
            engine=engine,
        )
        super().__init__(head)
        for name, parameter in net.named_parameters():
            if name not in head.fast_names:
                parameter.requires_grad_(False)  # no task ends elsewhere than it began

    def loss(self, episode: Episode) -> Tensor:
        """Half the squared distance to the tasks' weights, mean over tasks; queries are unused."""
        self.check(episode.support)
        trained, moments, *_ = self.head.fit(episode.support, key=episode.key)
        if self.training and isinstance(self.head.rule, LastingAdam):
            self.head.rule.remember(moments, self.head.steps)
        start = self.head.fast_weights()
        distances = [
            ((start[n] - phi.detach()) ** 2).flatten(1).sum(1) for n, phi in trained.items()
        ]
        return 0.5 * torch.stack(distances).sum(0).mean()
