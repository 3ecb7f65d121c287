"""Model-Agnostic Meta-Learning (Finn, Abbeel and Levine 2017)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from kshot.engine import SGD, Engine
from kshot.learners.inner_loop import (
    Fast,
    InnerLoop,
    NetworkLearner,
    Reduction,
    fast_parameters,
    norm_parameters,
)
from kshot.nn.norm import Normalization


class MAML(NetworkLearner):
    """MAML: weights from which a few gradient steps solve a new task.

    For each task the whole network takes `inner_steps` gradient steps on the support. The outer
    loop moves the common starting point so that the loss on the query *after* those steps falls,
    differentiating through them (or not, `first_order`).

        theta_i' = theta - alpha * grad_theta L_Si(theta)         (repeated inner_steps times)
        theta   <- theta - beta * grad_theta sum_i L_Qi(theta_i')

    Args:
        net: from `(rows, *features)` to `(rows, way)` logits or `(rows, *values)`.
        inner_lr: alpha, for the mean of the inner loss (see `reduction`).
        inner_steps: gradient steps per task in meta-training.
        test_steps: gradient steps per task at meta-test; `inner_steps` by default.
        first_order: take the inner gradient as a constant (FOMAML).
        normalization: `task` as the authors ran it (batch statistics of the queries:
            transductive), `support` (the support's statistics for the queries: inductive), or
            `frozen`.
        adapt_norm: also move batch normalisation's own parameters in the inner loop.
        fast: what a task moves: `all`, the `last` layer, or an adapter such as `lora` and the last
            layer.
        reduction: `mean`, or `sum/shot` as in the authors' code, whose alpha = 0.4 at 5-way is
            2.0 for the mean.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        The default inner loss is a mean, for which the authors' alpha = 0.4 at 5-way would be 2.0
        (`reduction="sum/shot"` takes their values as they are). Batch normalisation's epsilon is
        PyTorch's 1e-5, not 1e-3; the last layer starts as PyTorch's do, not from normal draws; the
        outer loss is a mean over tasks, not a sum.

    Example:
        >>> import kshot
        >>> from torch import nn
        >>> net = nn.Sequential(kshot.nn.MLP(1, hidden=(40, 40)), nn.Linear(40, 1))
        >>> learner = kshot.MAML(net, inner_lr=0.01)
        >>> waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=5), 0, [0, 1])
        >>> learner.adapt(waves.support)(waves.query.x).shape
        torch.Size([2, 15, 1])

    Reference:
        @inproceedings{finn2017maml,
          title={Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks},
          author={Finn, Chelsea and Abbeel, Pieter and Levine, Sergey},
          booktitle={International Conference on Machine Learning}, year={2017}}
    """

    family: ClassVar[str] = "gradient"
    fast: ClassVar[str] = "the network's weights"

    @property
    def title(self) -> str:
        """FOMAML, where the inner gradient is a constant."""
        return "FOMAML" if self.head.gradient == "detached" else super().title

    def __init__(
        self,
        net: nn.Module,
        *,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        test_steps: int | None = None,
        first_order: bool = False,
        normalization: Normalization = "task",
        adapt_norm: bool = False,
        fast: Fast = "all",
        reduction: Reduction = "mean",
        engine: Engine = "auto",
    ) -> None:
        still = set() if adapt_norm else norm_parameters(net)
        moves = fast_parameters(net, fast)
        head = InnerLoop(
            net,
            SGD(inner_lr),
            steps=inner_steps,
            test_steps=test_steps,
            gradient="detached" if first_order else "unrolled",
            fast=lambda name: moves(name) and name not in still,
            normalization=normalization,
            reduction=reduction,
            engine=engine,
        )
        super().__init__(head)
