"""Baseline: pretrain a classifier, then fit a new last layer (Chen et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import nn

from kshot.engine import Engine, Momentum
from kshot.learners.base import TaskShape
from kshot.learners.inner_loop import InnerLoop
from kshot.learners.supervised import SupervisedLearner, base_classes
from kshot.nn import output_size
from kshot.nn.norm import Normalization


class Baseline(SupervisedLearner):
    """Baseline: an ordinary classifier of the base classes, whose last layer is learned anew.

    Training is classification of all base classes. A new task keeps the encoder as it is and
    trains a fresh linear layer on the embedded support. It is what every few-shot method has to
    beat, and the first stage of those that start from a pretrained encoder.

        training:   min over f, W of  -log softmax_y( W' f(x) )     over the base classes
        a task:     min over w    of  -log softmax_y( w' f(x) )     over its support, f fixed

    Args:
        encoder: f, from `(rows, *features)` to `(rows, features)`.
        features: size of the encoder's output.
        way: classes of the widest task.
        classes: base classes.
        inner_lr: of SGD with momentum 0.9, dampening 0.9 and weight decay 1e-3.
        inner_steps: mini-batches per task.
        inner_batch: examples in each.
        normalization: `joint`: the training batch's statistics, running ones at meta-test.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        A batch is class-balanced: `way` classes by `shot` examples, where the authors draw images.
        A task's layer starts at zero, so that its classes start alike. The authors train it for
        100 epochs, 200 mini-batches at 5-way 1-shot and 700 at 5-shot: inner_steps takes them.

    Example:
        >>> import kshot
        >>> learner = kshot.Baseline(kshot.nn.Conv4(), features=64, way=3, classes=6)
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{chen2019closer,
          title={A Closer Look at Few-shot Classification},
          author={Chen, Wei-Yu and Liu, Yen-Cheng and Kira, Zsolt and Wang, Yu-Chiang Frank and
                  Huang, Jia-Bin},
          booktitle={International Conference on Learning Representations}, year={2019}}
    """

    family: ClassVar[str] = "transfer"
    fast: ClassVar[str] = "a new last layer"
    any_way: ClassVar[bool] = False
    order_free = False  # mini-batches are drawn by position

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        way: int,
        classes: int,
        inner_lr: float = 0.01,
        inner_steps: int = 100,
        inner_batch: int = 4,
        normalization: Normalization = "joint",
        engine: Engine = "auto",
    ) -> None:
        last = nn.Linear(features, way)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(
            encoder,
            last_layer(last, inner_lr, inner_steps, inner_batch, engine),
            nn.Linear(features, base_classes("Baseline", classes)),
            normalization=normalization,
        )

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the encoder, the tasks and the base classes."""
        features = output_size(encoder, shape.x_shape)
        return cls(encoder, features=features, way=shape.way, classes=shape.classes, **options)


def last_layer(layer: nn.Linear, lr: float, steps: int, batch: int, engine: Engine) -> InnerLoop:
    """Trains a layer on each support set as the authors do; its start is not learned."""
    head = InnerLoop(
        layer,
        Momentum(lr, momentum=0.9, dampening=0.9, weight_decay=1e-3),
        steps=steps,
        gradient="none",
        batch_size=batch,
        engine=engine,
    )
    layer.requires_grad_(False)
    return head
