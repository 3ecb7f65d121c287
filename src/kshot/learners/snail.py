"""SNAIL, a simple neural attentive learner (Mishra et al. 2018)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import ConfigError, EpisodeError
from kshot.functional import masked_logits
from kshot.learners.base import Head, MetaLearner, TaskKind, TaskShape
from kshot.nn import output_size
from kshot.nn.norm import Normalization
from kshot.types import Examples, Features, is_whole


class DenseBlock(nn.Module):
    """Causal convolution of kernel 2, gated, concatenated to its input (the paper, fig. 2a)."""

    def __init__(self, channels: int, dilation: int, filters: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.now = nn.Linear(channels, 2 * filters)
        self.before = nn.Linear(channels, 2 * filters, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence, `(tasks, length, channels)`."""
        earlier = F.pad(x, (0, 0, self.dilation, 0))[:, : x.shape[1]]
        return self._join(x, earlier)

    def last(self, x: Tensor, past: Tensor) -> Tensor:
        """The position after `past`, for each query alone: `(tasks, queries, channels)`."""
        if past.shape[1] < self.dilation:
            return self._join(x, torch.zeros_like(x[:, :1]))
        return self._join(x, past[:, -self.dilation].unsqueeze(1))

    def _join(self, x: Tensor, earlier: Tensor) -> Tensor:
        value, gate = (self.now(x) + self.before(earlier)).chunk(2, -1)
        return torch.cat([x, torch.tanh(value) * torch.sigmoid(gate)], -1)


class AttentionBlock(nn.Module):
    """Causal single-head attention, concatenated to its input (the paper, fig. 2c).

    Queries and keys start from the same weights, so that at first a position attends to what
    resembles it; from unequal ones it takes thousands of tasks until labels are read at all.
    """

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(channels, keys), nn.Linear(channels, keys)
        self.value = nn.Linear(channels, values)
        self.key.load_state_dict(self.query.state_dict())

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """A whole sequence; `real` is `(tasks, length)`."""
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        scores = self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(self.key.out_features)
        scores = scores.masked_fill(~(causal & real.unsqueeze(1)), torch.finfo(x.dtype).min)
        return torch.cat([x, scores.softmax(-1) @ self.value(x)], -1)

    def last(self, x: Tensor, past: Tensor, real: Tensor) -> Tensor:
        """The position after `past`, for each query alone: it sees the past and itself."""
        q = self.query(x)
        scores = torch.cat(
            [q @ self.key(past).transpose(1, 2), (q * self.key(x)).sum(-1, keepdim=True)], -1
        ) / math.sqrt(self.key.out_features)
        seen = F.pad(real, (0, 1), value=True).unsqueeze(1)
        weights = scores.masked_fill(~seen, torch.finfo(x.dtype).min).softmax(-1)
        read = weights[..., :-1] @ self.value(past) + weights[..., -1:] * self.value(x)
        return torch.cat([x, read], -1)


class Sequence(NamedTuple):
    """The state: what each block has seen of the support, and which positions are real.

    `present` says which classes a task has; it is None for regression.
    """

    past: list[Tensor]
    real: Tensor
    present: Tensor | None


class SnailHead(Head):
    """Reads the support as a sequence of (embedding, label); each query is the next position."""

    def __init__(
        self,
        features: int,
        *,
        way: int,
        y_shape: tuple[int, ...] = (),
        length: int,
        embedding: int = 64,
        filters: int = 128,
    ) -> None:
        super().__init__()
        for name, value, least in (("length", length, 1), ("embedding", embedding, 1)):
            if not is_whole(value, least):
                raise ConfigError(f"{name}={value}: give a whole number, at least {least}.")
        if not is_whole(filters, 4):
            raise ConfigError(f"filters={filters}: the first attention has a quarter; at least 4.")
        if not (way == 0 or is_whole(way, 2)):
            raise ConfigError(f"way={way}: at least 2 classes, or 0 for regression.")
        self.way, self.y_shape, self.length = way, y_shape, length
        self.outputs = way or math.prod(y_shape)
        self.embed = nn.Linear(features, embedding)
        channels, blocks = embedding + self.outputs, list[nn.Module]()

        def attention(keys: int, values: int) -> None:
            nonlocal channels
            blocks.append(AttentionBlock(channels, keys, values))
            channels += values

        def convolutions() -> None:
            nonlocal channels
            for i in range(1, math.ceil(math.log2(length + 1)) + 1):
                blocks.append(DenseBlock(channels, 2**i, filters))
                channels += filters

        # The paper's trunk for filters = 128.
        attention(filters // 2, filters // 4)
        convolutions()
        attention(2 * filters, filters)
        convolutions()
        attention(4 * filters, 2 * filters)
        self.blocks, self.out = nn.ModuleList(blocks), nn.Linear(channels, self.outputs)

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Sequence:
        """Run the trunk over the support and keep each block's input."""
        values = support.y.is_floating_point()
        if values != (self.way == 0) or (values and support.y.shape[2:] != self.y_shape):
            kind = f"values of shape {tuple(support.y.shape[2:])}" if values else "classes"
            own = f"{self.way} classes" if self.way else f"values of shape {self.y_shape}"
            raise EpisodeError(f"this SNAIL was built for {own}, but these tasks have {kind}.")
        length = int(support.real.sum(1).max())
        if support.way > self.way or length > self.length:
            raise EpisodeError(
                f"this SNAIL reads at most {self.length} support examples of {self.way} classes, "
                f"but a task has {length} of {support.way}: build it for longer tasks, or use a "
                "learner that serves any way and shot, such as ProtoNet."
            )
        if values:
            labels, present = support.y.flatten(2), None
        else:
            labels = F.pad(support.one_hot(support.x.dtype), (0, self.way - support.way))
            present = support.present()
        x = torch.cat([self.embed(support.x.flatten(2)), labels], -1)
        # Padding goes to the left, where the causal convolutions see zeros in any case.
        order = torch.argsort(support.real.int(), dim=1, stable=True).unsqueeze(-1)
        x, real = x.gather(1, order.expand_as(x)), support.real.gather(1, order.squeeze(-1))
        past = []
        for block in self.blocks:
            past.append(x)
            x = block(x, real) if isinstance(block, AttentionBlock) else block(x)
            x = x * real.unsqueeze(-1)
        return Sequence(past, real, present)

    def predict(self, state: Sequence, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)` or values; only the last position is computed."""
        x = F.pad(self.embed(x.flatten(2)), (0, self.outputs))  # a query's label reads zero
        for block, past in zip(self.blocks, state.past, strict=True):
            if isinstance(block, AttentionBlock):
                x = block.last(x, past, state.real)
            elif isinstance(block, DenseBlock):
                x = block.last(x, past)
        output: Tensor = self.out(x)
        if state.present is None:
            values: Tensor = output.unflatten(2, self.y_shape)
            return values
        return masked_logits(output[..., : state.present.shape[1]], state.present)


class SNAIL(MetaLearner):
    """SNAIL: read the support as a sequence and answer the query as its next element.

    Dilated causal convolutions gather what came before, causal attention picks from it; nothing
    is optimised at meta-test. The support's activations are computed once and kept; each query
    runs the last position alone, so queries do not see each other.

        DenseBlock(R, D): concat(x, tanh(a) * sigma(b)),  (a, b) = causal conv, dilation R
        TCBlock(T, D):    DenseBlock(2^i, D) for i = 1 ... ceil(log2 T)
        Attention(K, V):  concat(x, softmax(q k' / sqrt(K)) v), causally masked
        trunk: linear, Att, TC, Att, TC, Att, linear

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`.
        features: size of the encoder's output.
        way: classes of the widest task; 0 for regression.
        y_shape: shape of one value, for regression.
        length: examples of the longest support set (T is one more).
        embedding: size of the linear layer that ends the paper's encoder: 64 on Omniglot, 384 on
            mini-ImageNet.
        filters: D of the convolutions; the attentions scale with it.
        normalization: where the encoder's batch statistics come from.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        As a regressor (labels are values, the loss a squared error) the paper has no experiment.
        The attention blocks' sizes follow a port of the paper (its appendix was not at hand).
        Queries and keys start from equal weights. The paper draws the shot of each training episode
        from 1 to 5; here a recipe's `shot` decides.

    Example:
        >>> import kshot
        >>> learner = kshot.SNAIL(kshot.nn.MLP(64), features=40, way=3, length=3, filters=16)
        >>> digits = kshot.load("digits", flat=True)["test"]
        >>> episode = kshot.draw(digits, kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{mishra2018snail,
          title={A Simple Neural Attentive Meta-Learner},
          author={Mishra, Nikhil and Rohaninejad, Mostafa and Chen, Xi and Abbeel, Pieter},
          booktitle={International Conference on Learning Representations}, year={2018}}
    """

    family: ClassVar[str] = "recurrent"
    fast: ClassVar[str] = "activations of the support, read as a sequence"
    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification", "regression")
    symmetric: ClassVar[bool] = False  # labels are one-hot inputs with learned weights
    any_way: ClassVar[bool] = False
    order_free = False  # the support is a sequence

    head: SnailHead

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        way: int = 0,
        y_shape: tuple[int, ...] = (1,),
        length: int,
        embedding: int = 64,
        filters: int = 128,
        normalization: Normalization = "joint",
    ) -> None:
        sizes: dict[str, Any] = {"length": length, "embedding": embedding, "filters": filters}
        head = SnailHead(features, way=way, y_shape=y_shape, **sizes)
        super().__init__(encoder, head, normalization=normalization)

    def idle(self, examples: int) -> set[str]:
        """A convolution that reaches back further than the support sees only zeros there."""
        return {
            f"head.blocks.{i}.before.weight"
            for i, block in enumerate(self.head.blocks)
            if isinstance(block, DenseBlock) and block.dilation > examples
        }

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """Sized for the tasks' way and support."""
        features = output_size(encoder, shape.x_shape)
        return cls(
            encoder,
            features=features,
            way=shape.way,
            length=shape.length,
            y_shape=shape.y_shape,
            **options,
        )
