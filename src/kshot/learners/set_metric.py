"""SetMetric: a metric over the columns of any table, learned over tables."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.functional import class_means, masked_logits, squared_distances
from kshot.learners.base import Head, MetaLearner
from kshot.nn import MLP
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features

STATISTICS = 9
"""Numbers that describe a column."""

SMALL = 0.05
"""Added to variances of standardised columns before a logarithm is taken."""


TINY = 1e-8
"""Added to weights, whose root would have no slope at 0."""


class Metric(NamedTuple):
    """The state: what brings a query into the task's metric, and what it is compared with.

    Attributes:
        shift: mean of each column, `(tasks, features)`.
        factor: of each column, `(tasks, features)`; 0 for columns that do not vary.
        means: of the classes in the metric, `(tasks, way, features)`.
        examples: in the metric, `(tasks, examples, features)`.
        y: their labels.
        real: which of them are.
        numbers: strength, nearness and share of the two votes, `(tasks, 3)`.
    """

    shift: Tensor
    factor: Tensor
    means: Tensor
    examples: Tensor
    y: Tensor
    real: Tensor
    numbers: Tensor


class SetMetricHead(Head):
    """Weighs columns by what the support says of them; votes of class means and of examples."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.column = nn.Sequential(MLP(STATISTICS, hidden=(hidden,)), nn.Linear(hidden, hidden))
        self.weight = nn.Sequential(MLP(2 * hidden, hidden=(hidden,)), nn.Linear(hidden, 1))
        self.table = nn.Sequential(MLP(hidden, hidden=(hidden,)), nn.Linear(hidden, 3))

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Metric:
        """Describe the columns, weigh them, and bring the support into their metric."""
        x, real = support.x.flatten(2), support.real.unsqueeze(-1).to(support.x.dtype)
        count = real.sum(1)
        shift = (x * real).sum(1) / count
        variance = (((x - shift.unsqueeze(1)) * real) ** 2).sum(1).div(count)
        varies = variance > (1e-6 * shift) ** 2
        unit = torch.where(varies, variance, torch.ones_like(variance)).rsqrt() * varies
        z = (x - shift.unsqueeze(1)) * unit.unsqueeze(1) * real
        one_hot = support.one_hot(x.dtype)
        described = self._describe(z, one_hot, real)
        h = self.column(described.flatten(0, 1)).unflatten(0, described.shape[:2])
        alive = varies.unsqueeze(-1).to(h.dtype)
        of_all = (h * alive).sum(1) / alive.sum(1).clamp_min(1)
        both = torch.cat([h, of_all.unsqueeze(1).expand_as(h)], -1)
        raw = self.weight(both.flatten(0, 1)).unflatten(0, h.shape[:2]).squeeze(-1)
        weight = F.softplus(raw) * varies
        # So that many columns do not make an answer more certain than few.
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
        factor = unit * (weight + TINY).sqrt()
        near = (x - shift.unsqueeze(1)) * factor.unsqueeze(1)
        return Metric(
            shift,
            factor,
            class_means(near, one_hot),
            near,
            support.y,
            support.real,
            self.table(of_all),
        )

    def _describe(self, z: Tensor, one_hot: Tensor, real: Tensor) -> Tensor:
        """`(tasks, features, 9)`: what the support says of each column, and of the whole table."""
        count, sizes = real.sum(1), one_hot.sum(1)
        means = class_means(z, one_hot)
        between = (sizes.unsqueeze(-1) / count.unsqueeze(-1) * means**2).sum(1)
        residual = (z - one_hot @ means) * real
        way = (sizes > 0).sum(1, keepdim=True)
        freedom = (count - way).clamp_min(1)
        within = (residual**2).sum(1) / freedom
        largest = (residual.abs().amax(1)).log1p()
        third, fourth = ((z**k * real).sum(1) / count for k in (3, 4))
        shots = (count / way).log()
        whole = torch.cat([shots, way.log(), (count == way).to(z.dtype)], 1)
        columns = torch.stack(
            [
                between,
                (within + SMALL).log(),
                ((between + SMALL) / (within + SMALL)).log(),
                largest,
                third.abs().log1p(),
                fourth.log1p(),
            ],
            -1,
        )
        return torch.cat([columns, whole.unsqueeze(1).expand(-1, z.shape[2], -1)], -1)

    def predict(self, state: Metric, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)`."""
        q = (x.flatten(2) - state.shift.unsqueeze(1)) * state.factor.unsqueeze(1)
        strength, nearness, share = state.numbers.unsqueeze(1).unbind(-1)
        strength = F.softplus(strength + math.log(10)).unsqueeze(-1)
        nearness = F.softplus(nearness + math.log(10)).unsqueeze(-1)
        share = torch.sigmoid(share).unsqueeze(-1)
        to_means = -squared_distances(q, state.means)
        near = -nearness * squared_distances(q, state.examples)
        one_hot = F.one_hot(state.y, state.means.shape[1]).bool() & state.real.unsqueeze(-1)
        sizes = one_hot.sum(1)
        # An absent class has no examples to vote: zeros, which the mask of the logits hides.
        of_class = near.unsqueeze(-1).masked_fill(
            ~one_hot.unsqueeze(1) & (sizes > 0)[:, None, None], torch.finfo(near.dtype).min
        )
        log_mean = of_class.logsumexp(2) - sizes.clamp_min(1).log().unsqueeze(1)
        votes = log_mean / nearness
        logits = strength * ((1 - share) * to_means + share * votes)
        return masked_logits(logits, sizes > 0)


class SetMetric(MetaLearner):
    """SetMetric: classify rows of any table by a metric over its columns, learned over tables.

    Each column is described by what the support says of it (how far the classes are apart in it,
    how much they spread, its shape); a network, the same for all columns, weighs it beside the
    others. In the weighted metric a query is compared with the class means and with the examples.
    Columns and classes may be any, in any number and order.

        w_f = softplus( rho( h_f, mean_f' h_f' ) ),  h_f = phi( statistics of column f ),  sum w = 1
        d(a, b) = sum_f w_f ( (a_f - b_f) / s_f )^2            (s: deviation over the support)
        logit_k = t [ -(1-m) d(x, c_k) + m/g log mean_{i in k} exp( -g d(x, x_i) ) ]

    t, m and g come from the mean of h_f too.

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`; the identity for tables.
        hidden: width of the networks phi and rho.
        normalization: where an encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, features)`; logits `(tasks, queries, way)`. A column
        that is the same in the whole support has no weight, so that tables may be padded.

    Deviations:
        kshot's own, in the manner of Deep Sets (Zaheer et al. 2017) over columns and, as TabPFN
        (Hollmann et al. 2023), meta-trained on made-up tables; not a paper's method.

    Example:
        >>> import kshot
        >>> episode = kshot.draw(kshot.load("tables")["test"], kshot.EpisodeSpec(shot=5), 0, [0])
        >>> kshot.SetMetric().adapt(episode.support)(episode.query.x).shape[-1]
        10

    Reference:
        @inproceedings{zaheer2017deep,
          title={Deep Sets},
          author={Zaheer, Manzil and Kottur, Satwik and Ravanbakhsh, Siamak and Poczos, Barnabas
                  and Salakhutdinov, Ruslan and Smola, Alexander},
          booktitle={Advances in Neural Information Processing Systems}, year={2017}}
    """

    family: ClassVar[str] = "metric"
    fast: ClassVar[str] = "weights of the columns, class means, the support"
    any_width: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        hidden: int = 64,
        normalization: Normalization = "joint",
    ) -> None:
        super().__init__(
            encoder or nn.Identity(), SetMetricHead(hidden), normalization=normalization
        )
