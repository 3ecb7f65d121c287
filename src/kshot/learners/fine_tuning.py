"""Fine-tuning: the rival of every method that adapts (Yosinski et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from torch import nn

from kshot.engine import Adam, Engine, Momentum, UpdateRule
from kshot.errors import unknown
from kshot.learners.base import TaskShape
from kshot.learners.inner_loop import Fast, InnerLoop, NetworkLearner, fast_parameters
from kshot.nn.adapters import last
from kshot.nn.norm import Normalization


class FineTuning(NetworkLearner):
    """Fine-tuning: train a pretrained network, or a part of it, on each support set.

    Nothing is meta-trained. A task gets a new last layer that starts at zero, and some steps of an
    ordinary optimizer on all weights, on the last layer, or on an adapter.

        theta_(t+1) = optimizer step of  L_S(theta_t),   theta_0 the pretrained weights

    Args:
        net: a pretrained network and a last layer, `(rows, *features)` to `(rows, way)`.
        fast: what a task moves: `all`, the `last` layer, or an adapter such as `lora` and the last
            layer.
        inner_optimizer: `sgd` (with momentum 0.9) or `adam`.
        inner_lr: its learning rate.
        inner_steps: steps per task.
        inner_batch: examples per step; the whole support if None.
        weight_decay: of `sgd`.
        augment: augmentations (`affine`, `crop`, `flip`, `jitter`) by which each step sees other
            copies of the support's images.
        normalization: `frozen`: the statistics of the pre-training.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        Not a paper's method: what practice does, with the choices of the argument list.

    Example:
        >>> import kshot
        >>> from torch import nn
        >>> net = nn.Sequential(kshot.nn.Conv4(), nn.Linear(64, 3))
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> kshot.FineTuning(net, inner_steps=5).adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{yosinski2014transferable,
          title={How transferable are features in deep neural networks?},
          author={Yosinski, Jason and Clune, Jeff and Bengio, Yoshua and Lipson, Hod},
          booktitle={Advances in Neural Information Processing Systems}, year={2014}}
    """

    family: ClassVar[str] = "transfer"
    fast: ClassVar[str] = "the network's weights"
    trains: ClassVar[bool] = False

    def __init__(
        self,
        net: nn.Module,
        *,
        fast: Fast = "all",
        inner_optimizer: Literal["sgd", "adam"] = "sgd",
        inner_lr: float = 0.01,
        inner_steps: int = 50,
        inner_batch: int | None = None,
        weight_decay: float = 0.0,
        augment: Sequence[str] = (),
        normalization: Normalization = "frozen",
        engine: Engine = "auto",
    ) -> None:
        rules: dict[str, UpdateRule] = {
            "sgd": Momentum(inner_lr, weight_decay=weight_decay),
            "adam": Adam(inner_lr),
        }
        if inner_optimizer not in rules:
            raise unknown("inner_optimizer", inner_optimizer, rules)
        head = InnerLoop(
            net,
            rules[inner_optimizer],
            steps=inner_steps,
            gradient="none",
            fast=fast_parameters(net, fast),
            normalization=normalization,
            batch_size=inner_batch,
            augment=augment,
            engine=engine,
        )
        super().__init__(head)
        self.order_free = inner_batch is None and not augment
        self.requires_grad_(False)

    @property
    def title(self) -> str:
        """In words."""
        return "fine-tuning"

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """The encoder gets a last layer of zeros on top."""
        learner = super().for_tasks(encoder, shape, **options)
        for name in last(learner.head.net):
            nn.init.zeros_(learner.head.net.get_parameter(name))
        return learner
