"""Transductive information maximization (Boudiaf et al. 2020)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.engine import Adam, Engine, Weights, adapt_weights, even_groups, join_groups, over_tasks
from kshot.errors import ConfigError
from kshot.functional import class_means, masked_logits, squared_distances
from kshot.learners.base import Head, MetaLearner
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class Classifier(NamedTuple):
    """The state: one weight vector per class, and which classes a task has."""

    weights: Tensor
    present: Tensor


class TIMHead(Head):
    """Refines class means by the queries' mutual information with their labels."""

    transductive = True

    def __init__(
        self,
        *,
        steps: int,
        inner_lr: float,
        temperature: float,
        support_weight: float,
        conditional_weight: float,
        engine: Engine,
    ) -> None:
        super().__init__()
        if steps < 0 or not 0 < temperature < math.inf:
            raise ConfigError(
                f"steps={steps} must be >= 0 and temperature={temperature} > 0, and finite."
            )
        self.steps, self.rule, self.temperature = steps, Adam(inner_lr), temperature
        self.support_weight, self.conditional_weight = support_weight, conditional_weight
        self.engine: Engine = engine

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Classifier:
        """Start from the class means; at meta-test, maximise the mutual information."""
        support = support.with_x(F.normalize(support.x, dim=-1))
        one_hot = support.one_hot(support.x.dtype)
        start, present = class_means(support.x, one_hot), support.present()
        if self.training or query is None:
            return Classifier(start, present)
        query = query.with_x(F.normalize(query.x, dim=-1))
        indices, refined = [], []
        for index, (s, q) in even_groups(support, query):
            engine = "vmap" if self.engine == "auto" else self.engine
            refined.append(
                over_tasks(self._refine, start[index], s.x, s.y, q.x, present[index], engine=engine)
            )
            indices.append(index)
        return Classifier(join_groups(indices, refined), present)

    def predict(self, state: Classifier, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        return self._logits(state.weights, F.normalize(x, dim=-1), state.present)

    def _logits(self, weights: Tensor, z: Tensor, present: Tensor) -> Tensor:
        logits = -self.temperature / 2 * squared_distances(z, weights)
        return masked_logits(logits, present)

    def _refine(self, start: Tensor, zs: Tensor, ys: Tensor, zq: Tensor, present: Tensor) -> Tensor:
        def loss(fast: Weights, k: int) -> Tensor:
            w = fast["w"].unsqueeze(0)
            on_support = F.cross_entropy(self._logits(w, zs.unsqueeze(0), present)[0], ys)
            log_p = self._logits(w, zq.unsqueeze(0), present)[0].log_softmax(-1)
            conditional = -(log_p.exp() * log_p).sum(-1).mean()
            marginal = log_p.exp().mean(0)
            entropy: Tensor = -torch.special.xlogy(marginal, marginal.clamp_min(1e-12)).sum()
            total: Tensor = self.support_weight * on_support - entropy
            return total + self.conditional_weight * conditional

        refined = adapt_weights(loss, {"w": start}, self.rule, self.steps, gradient="none")
        return refined["w"]


class TIM(MetaLearner):
    """TIM: class weights that make the queries' labels confident and balanced.

    The class means of the support are refined by gradient steps that raise the mutual information
    between the queries and their predicted labels, while the support stays right. All queries of
    a task decide together: the method is transductive, and it assumes that the queries are about
    balanced over the classes.

        p_ik ~ exp(-tau/2 ||w_k - z_i||^2),  z of unit length
        min_w  lambda * CE(support) - H(mean_i p_i) + alpha * mean_i H(p_i)

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`.
        steps: gradient steps (Adam) per task at meta-test; the paper's 1000.
        inner_lr: Adam's learning rate; the paper's 1e-4.
        temperature: tau; the paper's 15.
        support_weight: lambda; the paper's 0.1.
        conditional_weight: alpha; the paper's 0.1.
        normalization: where the encoder's batch statistics come from.
        engine: `loop` or `vmap`.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)`.

    Deviations:
        The paper trains its encoder as a classifier of the base classes. Here meta-training
        shapes it by the cross-entropy of the queries under the class means, which is where the
        refinement starts; the refinement itself runs at meta-test, as in the paper.

    Example:
        >>> import kshot
        >>> learner = kshot.TIM(kshot.nn.Conv4(), steps=50).eval()
        >>> e = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner(e).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{boudiaf2020tim,
          title={Information Maximization for Few-Shot Learning},
          author={Boudiaf, Malik and Ziko, Imtiaz and Rony, J{\\'e}r{\\^o}me and Dolz, Jos{\\'e}
                  and Piantanida, Pablo and Ben Ayed, Ismail},
          booktitle={Advances in Neural Information Processing Systems}, year={2020}}
    """

    family: ClassVar[str] = "transductive"
    fast: ClassVar[str] = "class weights, refined on the queries"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        steps: int = 1000,
        inner_lr: float = 1e-4,
        temperature: float = 15.0,
        support_weight: float = 0.1,
        conditional_weight: float = 0.1,
        normalization: Normalization = "joint",
        engine: Engine = "auto",
    ) -> None:
        head = TIMHead(
            steps=steps,
            inner_lr=inner_lr,
            temperature=temperature,
            support_weight=support_weight,
            conditional_weight=conditional_weight,
            engine=engine,
        )
        super().__init__(encoder, head, normalization=normalization)
