"""Baseline++: Baseline with a cosine classifier (Chen et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from kshot.engine import Engine
from kshot.engine.inner import positive
from kshot.learners.base import TaskShape
from kshot.learners.baseline import last_layer
from kshot.learners.supervised import SupervisedLearner, base_classes
from kshot.nn import output_size
from kshot.nn.norm import Normalization


class CosineLinear(nn.Linear):
    """A linear layer whose outputs are scaled cosines of the input and each row of weights."""

    def __init__(self, features: int, way: int, scale: float) -> None:
        super().__init__(features, way, bias=False)
        self.scale = positive("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """`scale * cos(x, w_k)`."""
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))


class BaselinePlusPlus(SupervisedLearner):
    """Baseline++: a cosine classifier of the base classes, whose last layer is learned anew.

    As Baseline, but both classifiers compare directions: each class is a vector, and a logit is
    its cosine with the embedding. That makes the embeddings of a class more alike.

        p(y = k | x) = softmax_k( s cos(f(x), w_k) )

    Args:
        encoder: f, from `(rows, *features)` to `(rows, features)`.
        features: size of the encoder's output.
        way: classes of the widest task.
        classes: base classes.
        scale: s, of both classifiers; by default the authors': 2, and 10 for more than 200 classes.
        inner_lr: of SGD with momentum 0.9, dampening 0.9 and weight decay 1e-3.
        inner_steps: mini-batches per task.
        inner_batch: examples in each.
        normalization: `joint`: the training batch's statistics, running ones at meta-test.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        A batch is class-balanced: `way` classes by `shot` examples, where the authors draw images.
        The authors train a task's layer for 100 epochs, 200 mini-batches at 5-way 1-shot and 700 at
        5-shot: inner_steps takes them. Every task's layer starts from the same random rows. The
        base classifier's rows are normalised without the separate lengths of weight normalisation,
        which a cosine undoes.

    Example:
        >>> import kshot
        >>> learner = kshot.BaselinePlusPlus(kshot.nn.Conv4(), features=64, way=3, classes=6)
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
    fast: ClassVar[str] = "a new last layer of cosines"
    symmetric: ClassVar[bool] = False  # the last layer starts from rows of its own
    any_way: ClassVar[bool] = False
    order_free = False  # mini-batches are drawn by position

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        way: int,
        classes: int,
        scale: float | None = None,
        inner_lr: float = 0.01,
        inner_steps: int = 100,
        inner_batch: int = 4,
        normalization: Normalization = "joint",
        engine: Engine = "auto",
    ) -> None:
        head, base = (
            CosineLinear(features, count, scale or (10.0 if count > 200 else 2.0))
            for count in (way, base_classes("BaselinePlusPlus", classes))
        )
        super().__init__(
            encoder,
            last_layer(head, inner_lr, inner_steps, inner_batch, engine),
            base,
            normalization=normalization,
        )

    @property
    def title(self) -> str:
        """The paper's name."""
        return "Baseline++"

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the encoder, the tasks and the base classes."""
        features = output_size(encoder, shape.x_shape)
        return cls(encoder, features=features, way=shape.way, classes=shape.classes, **options)
