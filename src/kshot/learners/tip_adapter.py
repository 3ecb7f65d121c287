"""Tip-Adapter's cache of the support (Zhang et al. 2022), for any encoder."""

from __future__ import annotations

from collections import deque
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.engine import Adam, over_tasks, trajectory
from kshot.engine.inner import Weights, positive
from kshot.errors import ConfigError
from kshot.functional import class_means, masked_logits
from kshot.learners.base import Head
from kshot.learners.transfer import TransferLearner
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class Cache(NamedTuple):
    """The state: keys `(tasks, examples, features)`, their one-hot classes, class means."""

    keys: Tensor
    values: Tensor
    means: Tensor


class CacheHead(Head):
    """Class means corrected by a weighted vote of the cached support."""

    def __init__(
        self, alpha: float, beta: float, scale: float, steps: int, inner_lr: float
    ) -> None:
        super().__init__()
        self.alpha, self.beta = positive("alpha", alpha), positive("beta", beta)
        self.scale = positive("scale", scale)
        if steps < 0:
            raise ConfigError(f"inner steps cannot be negative: {steps}.")
        self.steps, self.rule = steps, Adam(inner_lr)

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Cache:
        """Keep the embedded support; where steps are asked for, move its keys to fit it."""
        one_hot = support.one_hot(support.x.dtype)
        keys = F.normalize(support.x, dim=-1)
        means = F.normalize(class_means(keys, one_hot), dim=-1)
        if self.steps:
            keys = over_tasks(self._move, keys, one_hot, means, engine="vmap")
        return Cache(keys, one_hot, means)

    def predict(self, state: Cache, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        logits = self._logits(F.normalize(x, dim=-1), state.keys, state.values, state.means)
        return masked_logits(logits, state.values.sum(1) > 0)

    def _logits(self, z: Tensor, keys: Tensor, values: Tensor, means: Tensor) -> Tensor:
        near = torch.exp(-self.beta * (1 - z @ keys.transpose(-1, -2)))
        return self.scale * (z @ means.transpose(-1, -2)) + self.alpha * (near @ values)

    def _move(self, keys: Tensor, values: Tensor, means: Tensor) -> Tensor:
        def loss(fast: Weights, k: int) -> Tensor:
            logits = self._logits(keys, fast["keys"], values, means)
            logits = masked_logits(logits, values.sum(0) > 0)
            return -(F.log_softmax(logits, -1) * values).sum() / values.sum()

        path = trajectory(loss, {"keys": keys}, self.rule, self.steps, gradient="none")
        moved: Tensor = deque(path, maxlen=1).pop()[0]["keys"]
        return moved


class TipAdapter(TransferLearner):
    """A cache head in the manner of Tip-Adapter: class means, corrected by the support's own vote.

    Nothing is meta-trained. The support is kept as a cache of keys and labels; a query is compared
    with the class means, and each cached example adds to its class by how near it is. With steps,
    the keys move to fit the support (Tip-Adapter-F).

        logits = s f C' + alpha exp( -beta (1 - f F') ) L
        f, F, C: unit embeddings of the query, the support and the class means; L: one-hot labels

    Args:
        encoder: pretrained; it stays as it is.
        alpha: weight of the cache.
        beta: its sharpness.
        scale: s, of the cosines to the class means.
        inner_steps: of Adam on the keys, per task; 0 trains nothing.
        inner_lr: its learning rate.
        normalization: `frozen`: the statistics of the pre-training.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        The authors compare with CLIP's text embeddings of the class names, for which class means
        stand here, since an encoder need not know any text; the scale is 10, not CLIP's 100. The
        keys move by plain Adam on all of the support, not by AdamW on mini-batches of augmented
        images.

    Example:
        >>> import kshot
        >>> learner = kshot.TipAdapter(kshot.nn.Conv4())
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{zhang2022tip,
          title={Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification},
          author={Zhang, Renrui and Zhang, Wei and Fang, Rongyao and Gao, Peng and Li, Kunchang and
                  Dai, Jifeng and Qiao, Yu and Li, Hongsheng},
          booktitle={European Conference on Computer Vision}, year={2022}}
    """

    fast: ClassVar[str] = "a cache of the support"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        alpha: float = 1.17,
        beta: float = 1.0,
        scale: float = 10.0,
        inner_steps: int = 0,
        inner_lr: float = 1e-3,
        normalization: Normalization = "frozen",
    ) -> None:
        head = CacheHead(alpha, beta, scale, inner_steps, inner_lr)
        super().__init__(encoder, head, normalization=normalization)
