"""ANIL, almost no inner loop (Raghu et al. 2020)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import nn

from kshot.engine import SGD, Engine
from kshot.learners.base import MetaLearner, TaskKind, TaskShape
from kshot.learners.inner_loop import InnerLoop, Reduction, output_layer
from kshot.nn import output_size
from kshot.nn.norm import Normalization


class ANIL(MetaLearner):
    """ANIL: MAML whose inner loop moves the last layer alone.

    Each task takes gradient steps on a linear layer over the embedded support; the outer loop
    moves the encoder and the layer's start, differentiating through those steps. The encoder runs
    once per example, so it is far cheaper than MAML.

        w_i' = w - alpha * grad_w L_Si(w, f_theta)                (repeated inner_steps times)
        (theta, w) <- (theta, w) - beta * grad_(theta, w) sum_i L_Qi(w_i', f_theta)

    Args:
        encoder: f, from `(rows, *features)` to `(rows, features)`.
        features: size of the encoder's output.
        way: classes of the widest task; 0 for regression.
        y_shape: shape of one value, for regression.
        inner_lr: alpha, for the mean of the inner loss (see `reduction`).
        inner_steps: gradient steps per task in meta-training.
        test_steps: gradient steps per task at meta-test; `inner_steps` by default.
        first_order: take the inner gradient as a constant.
        normalization: `task` as the authors ran it (batch statistics of the queries:
            transductive), `support`, `joint` or `frozen`.
        reduction: `mean`, or `sum/shot` as in MAML's code.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        The last layer starts as PyTorch's do; the outer loss is a mean over tasks, not a sum.

    Example:
        >>> import kshot
        >>> learner = kshot.ANIL(kshot.nn.Conv4(), features=64, way=3, inner_lr=0.1)
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{raghu2020rapid,
          title={Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML},
          author={Raghu, Aniruddh and Raghu, Maithra and Bengio, Samy and Vinyals, Oriol},
          booktitle={International Conference on Learning Representations}, year={2020}}
    """

    family: ClassVar[str] = "gradient"
    fast: ClassVar[str] = "the last layer's weights"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification", "regression")
    symmetric: ClassVar[bool] = False  # the last layer starts from learned rows
    any_way: ClassVar[bool] = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        way: int = 0,
        y_shape: tuple[int, ...] = (1,),
        inner_lr: float = 0.1,
        inner_steps: int = 1,
        test_steps: int | None = None,
        first_order: bool = False,
        normalization: Normalization = "task",
        reduction: Reduction = "mean",
        engine: Engine = "auto",
    ) -> None:
        head = InnerLoop(
            output_layer(features, way, y_shape),
            SGD(inner_lr),
            steps=inner_steps,
            test_steps=test_steps,
            gradient="detached" if first_order else "unrolled",
            reduction=reduction,
            engine=engine,
        )
        super().__init__(encoder, head, normalization=normalization)

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the encoder and the tasks' classes or values."""
        features = output_size(encoder, shape.x_shape)
        return cls(encoder, features=features, way=shape.way, y_shape=shape.y_shape, **options)
