"""Meta-Transfer Learning (Sun et al. 2019)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import nn

from kshot.engine import Engine
from kshot.errors import ConfigError
from kshot.learners.anil import ANIL
from kshot.learners.base import TaskShape
from kshot.learners.inner_loop import Fast, adapter_names
from kshot.nn.adapters import freeze_all_but
from kshot.nn.norm import Normalization


class MTL(ANIL):
    """Meta-Transfer Learning: meta-learn how to scale and shift a frozen, pretrained network.

    The encoder has been pretrained on the base classes (`kshot pretrain`) and stays as it is; what
    the outer loop moves is a factor for each of its kernels, an offset for each bias, and the start
    of the last layer. A task moves the last layer alone. With hard tasks (`train.hard_tasks`), the
    classes that were answered worst make up further tasks.

        SS(X; W, b) = (W * phi_1) X + (b + phi_2)                            phi_1 = 1, phi_2 = 0
        w_i' = w - beta * grad_w L_Si(w, phi)                                (inner_steps times)
        (phi, w) <- (phi, w) - gamma * grad_(phi, w) sum_i L_Qi(w_i', phi)

    Args:
        encoder: pretrained, from `(rows, *features)` to `(rows, features)`.
        features: size of the encoder's output.
        way: classes of the widest task; 0 for regression.
        y_shape: shape of one value, for regression.
        slow: what the outer loop moves of the encoder: `scale_shift`, or another adapter.
        inner_lr: beta, for the mean of the inner loss.
        inner_steps: gradient steps per task in meta-training; the authors' 100 (PyTorch).
        test_steps: the same at meta-test; `inner_steps` by default.
        first_order: take the inner gradient as a constant, as the authors' PyTorch code does.
        normalization: `frozen`: the statistics of the pre-training.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        The authors normalise by the batch; here by the statistics of the pre-training, so that one
        query's answer does not depend on the others. They never published the code of their hard
        tasks: here a class waits in a pool until there are enough for a meta-batch of them.

    Example:
        >>> import kshot
        >>> learner = kshot.MTL(kshot.nn.Conv4(), features=64, way=3)
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{sun2019meta,
          title={Meta-Transfer Learning for Few-Shot Learning},
          author={Sun, Qianru and Liu, Yaoyao and Chua, Tat-Seng and Schiele, Bernt},
          booktitle={Conference on Computer Vision and Pattern Recognition}, year={2019}}
    """

    family: ClassVar[str] = "transfer"

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the encoder and the tasks' classes or values."""
        if not all(p.requires_grad for p in encoder.parameters()):
            raise ConfigError(
                "MTL itself says what moves of the encoder: leave encoder.slow at 'all', and set "
                "learner.slow, such as learner.slow=film."
            )
        return super().for_tasks(encoder, shape, **options)

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        way: int = 0,
        y_shape: tuple[int, ...] = (1,),
        slow: Fast = "scale_shift",
        inner_lr: float = 0.01,
        inner_steps: int = 100,
        test_steps: int | None = None,
        first_order: bool = False,
        normalization: Normalization = "frozen",
        engine: Engine = "auto",
    ) -> None:
        freeze_all_but(encoder, adapter_names(encoder, slow))
        super().__init__(
            encoder,
            features=features,
            way=way,
            y_shape=y_shape,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            test_steps=test_steps,
            first_order=first_order,
            normalization=normalization,
            engine=engine,
        )
