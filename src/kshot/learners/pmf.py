"""PMF: pre-train, meta-train, fine-tune (Hu et al. 2022)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kshot.engine import Adam, Weights, adapt_weights, even_groups, join_groups, over_tasks
from kshot.engine.inner import positive
from kshot.episodes.augment import changed, color_jitter, random_crop, uniforms
from kshot.errors import ConfigError
from kshot.functional import class_means, cosine_similarity, masked_logits
from kshot.learners.base import Head, MetaLearner
from kshot.learners.inner_loop import Fast, adapter_names
from kshot.nn.norm import convert_batch_norm, running_statistics
from kshot.types import Examples, Features, unlabelled

VIEWS = (color_jitter(), random_crop())
"""What makes a pseudo-query of a support image."""


class Tuned(NamedTuple):
    """The state: each task's weights (none before fine-tuning), class means, classes present."""

    weights: Weights
    means: Tensor
    present: Tensor


class PMFHead(Head):
    """Class means by a network that is fine-tuned on each support set at meta-test."""

    def __init__(
        self,
        net: nn.Module,
        *,
        scale: float,
        test_steps: int,
        inner_lr: float,
        views: bool,
        fast: Fast,
    ) -> None:
        super().__init__()
        convert_batch_norm(net)
        if test_steps < 0:
            raise ConfigError(f"inner steps cannot be negative: {test_steps}.")
        moving = None if fast == "all" else set(adapter_names(net, fast))
        self.net, self.views = net, views
        self.test_steps, self.rule = test_steps, Adam(inner_lr)
        self.fast_names = [n for n, _ in net.named_parameters() if moving is None or n in moving]
        self.log_scale = nn.Parameter(torch.tensor(math.log(positive("scale", scale))))

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Tuned:
        """Class means; at meta-test after fine-tuning on the support."""
        present = support.present()
        if self.training or not self.test_steps:
            z = support.unflatten(self._embed({}, support.flat()))
            return Tuned({}, class_means(z, support.one_hot(z.dtype)), present)
        indices, tuned = [], []
        for index, (part,) in even_groups(support):
            units = self._units(part, key[index])
            tuned.append(over_tasks(self._fit_task, part.x, part.y, present[index], units))
            indices.append(index)
        weights, means = join_groups(indices, tuned)
        return Tuned(weights, means, present)

    def predict(self, state: Tuned, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        if state.weights:
            z = over_tasks(self._embed, state.weights, x)
        else:
            rows = unlabelled(x)
            z = rows.unflatten(self._embed({}, rows.flat()))
        return masked_logits(self._cosines(z, state.means), state.present)

    def _embed(self, weights: Weights, x: Features) -> Tensor:
        with running_statistics():
            z: Tensor = functional_call(self.net, weights, (x,))
        return z

    def _cosines(self, z: Tensor, means: Tensor) -> Tensor:
        return self.log_scale.exp() * cosine_similarity(z, means)

    def _fit_task(
        self, x: Features, y: Tensor, present: Tensor, units: Tensor | None
    ) -> tuple[Weights, Tensor]:
        one_hot = F.one_hot(y, len(present)).unsqueeze(0)

        def means(weights: Weights) -> Tensor:
            z = self._embed(weights, x).unsqueeze(0)
            return class_means(z, one_hot.to(z.dtype))

        def loss(weights: Weights, k: int) -> Tensor:
            asked = x if units is None else changed(x, VIEWS, units[k])
            z = self._embed(weights, asked).unsqueeze(0)
            logits = masked_logits(self._cosines(z, means(weights)), present)
            return F.cross_entropy(logits[0], y)

        parameters = dict(self.net.named_parameters())
        start = {name: parameters[name] for name in self.fast_names}
        weights = adapt_weights(loss, start, self.rule, self.test_steps, gradient="none")
        return weights, means(weights)[0]

    def _units(self, support: Examples, key: Tensor) -> Tensor | None:
        """Uniforms `(tasks, steps, views, examples, 4)` that decide the pseudo-queries."""
        if not (self.views and isinstance(support.x, Tensor) and support.x.dim() == 5):
            return None
        return uniforms("pmf", key, self.test_steps, len(VIEWS), support.size)


class PMF(MetaLearner):
    """PMF: a pretrained encoder, meta-trained as a ProtoNet of cosines, fine-tuned for each task.

    Meta-training is that of Prototypical Networks. At meta-test the whole encoder takes some steps
    on the support: changed copies of the support images are the queries, the support itself gives
    the class means. The learning rate is to be chosen for each domain, on a few tasks of its
    validation classes, where 0 steps are a choice too (`kshot transfer` does so).

        p(y = k | x) = softmax_k( tau cos(f(x), c_k) ),   c_k the mean of f over S_k
        f_i = Adam on  -log p(y | view(x)),  (x, y) in S_i          (test_steps times, from f)

    Args:
        encoder: f, pretrained, from `(rows, *features)` to `(rows, features)`.
        scale: tau at the start; learned.
        test_steps: fine-tuning steps per task at meta-test.
        inner_lr: Adam's, of the fine-tuning.
        views: change the support images (colours, position) to be queries; else they are queries
            as they are, as other inputs are always.
        fast: what fine-tuning moves: `all`, or an adapter such as `film`.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        Every image is changed, not 9 of 10. The authors' logits have a learned offset, which a
        softmax does not see. Batch normalisation keeps the statistics of the pre-training (their
        transformers have none). `views=False` learns from the support alone.

    Example:
        >>> import kshot
        >>> learner = kshot.PMF(kshot.nn.Conv4(), test_steps=2).eval()
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{hu2022pushing,
          title={Pushing the Limits of Simple Pipelines for Few-Shot Learning: External Data and
                 Fine-Tuning Make a Difference},
          author={Hu, Shell Xu and Li, Da and St{\\"u}hmer, Jan and Kim, Minyoung and Hospedales,
                  Timothy M.},
          booktitle={Conference on Computer Vision and Pattern Recognition}, year={2022}}
    """

    family: ClassVar[str] = "transfer"
    fast: ClassVar[str] = "the encoder's weights, and class means"
    order_free = False  # an image's changes depend on its place

    head: PMFHead

    def __init__(
        self,
        encoder: nn.Module,
        *,
        scale: float = 10.0,
        test_steps: int = 50,
        inner_lr: float = 1e-4,
        views: bool = True,
        fast: Fast = "all",
    ) -> None:
        head = PMFHead(
            encoder,
            scale=scale,
            test_steps=test_steps,
            inner_lr=inner_lr,
            views=views,
            fast=fast,
        )
        super().__init__(nn.Identity(), head, normalization="frozen")

    @property
    def body(self) -> nn.Module:
        """The encoder before fine-tuning."""
        return self.head.net
