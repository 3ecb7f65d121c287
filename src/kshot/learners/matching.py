"""Matching Networks (Vinyals et al. 2016)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kshot.errors import ConfigError, EpisodeError
from kshot.functional import cosine_similarity
from kshot.learners.base import Head, MetaLearner, TaskKind, TaskShape
from kshot.nn import output_size
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features


class Memory(NamedTuple):
    """The state: g(x_i) and y_i of the support, which of them are real, and the classes present.

    Real examples stand before the padding. For classes, y is one-hot and `present` is given.
    """

    g: Tensor
    y: Tensor
    real: Tensor
    present: Tensor | None


SMALLEST_TEMPERATURE = 1e-6
"""Below it, a cosine over it leaves the numbers of 32 bits."""


class SupportLSTM(nn.Module):
    """g(x_i, S) = forward h_i + backward h_i + g'(x_i): a support example in the support's context.

    The paper's appendix A.2.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, features, batch_first=True, bidirectional=True)

    def forward(self, z: Tensor, real: Tensor) -> Tensor:
        """`(tasks, examples, features)`; real examples stand first."""
        lengths = real.sum(1).cpu()
        packed = pack_padded_sequence(z, lengths, batch_first=True, enforce_sorted=False)
        both, _ = pad_packed_sequence(self.lstm(packed)[0], True, total_length=z.shape[1])
        forward, backward = both.chunk(2, -1)
        return forward + backward + z


class ReadingLSTM(nn.Module):
    """f(x, S): a query that reads the support's embeddings for some steps (appendix A.1).

        r_(k-1) = sum_i softmax_i(h_(k-1) . g(x_i)) g(x_i),   h_0 = 0
        h_k, c_k = LSTM(f'(x), [h_(k-1), r_(k-1)], c_(k-1)),   h_k <- h_k + f'(x)

    The gates are linear in all that enters them, so r enters beside f'(x).
    """

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(2 * features, features)

    def forward(self, z: Tensor, memory: Memory) -> Tensor:
        """`(tasks, queries, features)`."""
        h, c = torch.zeros_like(z), torch.zeros_like(z)
        for _ in range(self.steps):
            r = attention(h @ memory.g.transpose(1, 2), memory.real).exp() @ memory.g
            both = torch.cat([z, r], -1).flatten(0, 1)
            h, c = self.cell(both, (h.flatten(0, 1), c.flatten(0, 1)))
            h, c = h.view_as(z) + z, c.view_as(z)
        return h


def attention(scores: Tensor, real: Tensor) -> Tensor:
    """Logarithms of the weights `(tasks, queries, examples)`; padding gets none."""
    least = torch.finfo(scores.dtype).min
    return scores.masked_fill(~real.unsqueeze(1), least).log_softmax(-1)


class MatchingHead(Head):
    """Keeps the support; a query's answer is the mean of its labels, weighted by attention."""

    def __init__(
        self, temperature: float, features: int | None, fce: bool, read_steps: int
    ) -> None:
        super().__init__()
        if not SMALLEST_TEMPERATURE <= temperature < math.inf:
            raise ConfigError(
                f"temperature={temperature} must be greater than 0 (at least "
                f"{SMALLEST_TEMPERATURE}), and finite."
            )
        if fce and features is None:
            raise ConfigError("fce=True needs features, the size of the encoder's output.")
        if read_steps < 1:
            raise ConfigError(f"read_steps={read_steps}: a query reads at least once.")
        self.temperature = temperature
        self.in_context = SupportLSTM(features) if fce and features else None
        self.reading = ReadingLSTM(features, read_steps) if fce and features else None

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Memory:
        """Embed the support, each example in the context of the others if asked for."""
        first = torch.argsort(~support.real, dim=1, stable=True)  # real ones before padding
        tasks = torch.arange(support.tasks, device=first.device).unsqueeze(1)
        real, g = support.real[tasks, first], support.x[tasks, first]
        if self.in_context is not None:
            asked, given = self.in_context.lstm.input_size, g.shape[-1]
            if given != asked:
                raise EpisodeError(
                    f"the encoder's output has {given} features, but this MatchingNet was built "
                    f"for features={asked}."
                )
            g = self.in_context(g, real)
        if support.y.is_floating_point():
            return Memory(g, support.y[tasks, first], real, None)
        one_hot = support.one_hot(g.dtype)[tasks, first]
        return Memory(g, one_hot, real, support.present())

    def predict(self, state: Memory, x: Features, mask: Tensor | None = None) -> Tensor:
        """Log-probabilities `(tasks, queries, way)`, or values `(tasks, queries, *values)`."""
        f = x if self.reading is None else self.reading(x, state)
        weights = attention(cosine_similarity(f, state.g) / self.temperature, state.real)
        if state.present is None:
            values: Tensor = (weights.exp() @ state.y.flatten(2)).unflatten(2, state.y.shape[2:])
            return values
        # log sum_i a_i y_i over the examples of a class, whole where a_i itself would be zero
        least = torch.finfo(weights.dtype).min
        others = (state.y == 0).unsqueeze(1)
        logits: Tensor = weights.unsqueeze(-1).masked_fill(others, least).logsumexp(2)
        return logits.clamp_min(least)


class MatchingNet(MetaLearner):
    """Matching Networks: a query takes the labels of the support examples that it resembles.

    The answer is the mean of the support's labels, weighted by a softmax over cosine
    similarities; in classification the weights of a class add up. With full context embeddings
    (`fce`) a bidirectional LSTM embeds each support example in the context of the others, and
    each query reads the support by an attentive LSTM. Nothing is optimised at meta-test.

        P(y | x, S) = sum_i a(x, x_i) y_i
        a(x, x_i) = softmax_i( cos(f(x), g(x_i)) / temperature )

    Args:
        encoder: f' and g', from `(rows, *features)` to `(rows, features)`.
        temperature: of the attention; 1 is the paper's formula, whose loss cannot fall far:
            cosines within [-1, 1] leave the right class at most 65 % at 5-way 1-shot.
        fce: full context embeddings.
        features: size of the encoder's output; only `fce` needs it.
        read_steps: how often a query reads the support, with `fce`.
        normalization: where the encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, *features)`; log-probabilities
        `(tasks, queries, way)` or values `(tasks, queries, *values)`.

    Deviations:
        As a regressor (the weighted mean of y) the paper has no experiment. It does not say how
        often a query reads; 3 is Ravi and Larochelle's.

    Example:
        >>> import kshot
        >>> learner = kshot.MatchingNet(kshot.nn.Conv4(), temperature=0.1)
        >>> episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{vinyals2016matching,
          title={Matching Networks for One Shot Learning},
          author={Vinyals, Oriol and Blundell, Charles and Lillicrap, Timothy and
                  Kavukcuoglu, Koray and Wierstra, Daan},
          booktitle={Advances in Neural Information Processing Systems}, year={2016}}
    """

    family: ClassVar[str] = "metric"
    fast: ClassVar[str] = "the support, kept and compared with"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification", "regression")

    @property
    def title(self) -> str:
        """It tells where full context embeddings are in use."""
        return f"{super().title}{'' if self.order_free else ', FCE'}"

    def __init__(
        self,
        encoder: nn.Module,
        *,
        temperature: float = 1.0,
        fce: bool = False,
        features: int | None = None,
        read_steps: int = 3,
        normalization: Normalization = "joint",
    ) -> None:
        head = MatchingHead(temperature, features, fce, read_steps)
        super().__init__(encoder, head, normalization=normalization)
        self.order_free = not fce  # an LSTM reads the support

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """The LSTMs are sized for the encoder."""
        return cls(encoder, features=output_size(encoder, shape.x_shape), **options)
