"""Meta-LSTM (Ravi and Larochelle 2017)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from kshot.engine import Engine, Weights
from kshot.errors import ConfigError
from kshot.learners.inner_loop import Fast, InnerLoop, NetworkLearner, fast_parameters
from kshot.nn.norm import Normalization
from kshot.types import is_whole

PREPROCESS_P = 10.0


def preprocess(x: Tensor) -> Tensor:
    """(log|x| / p, sign x) for |x| >= e^-p, else (-1, e^p x); p = 10 (appendix A)."""
    large = x.abs() >= math.exp(-PREPROCESS_P)
    log = torch.where(large, x, torch.ones_like(x)).abs().log() / PREPROCESS_P
    first = torch.where(large, log, -torch.ones_like(x))
    second = torch.where(large, x.sign(), math.exp(PREPROCESS_P) * x)
    return torch.stack([first, second])


def columns(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer on each column of `(features, coordinates)`: gates stay in one piece of memory."""
    return layer.weight @ x + layer.bias.unsqueeze(1)


class RuleState(NamedTuple):
    """Per coordinate: the first LSTM's output and cell, and the previous gates."""

    h: Tensor
    cell: Tensor
    input_gate: Tensor
    forget_gate: Tensor


class LSTMRule(nn.Module):
    """The update rule as an LSTM whose cell state is the learner's weights.

    One set of LSTM weights serves all coordinates, which are the columns of every matrix here.
    `nn.LSTM` does not vmap, so the first layer is written out.
    """

    def __init__(self, hidden: int = 20) -> None:
        super().__init__()
        if not is_whole(hidden, 1):
            raise ConfigError(f"hidden={hidden}: the LSTM has at least 1 unit.")
        self.hidden = hidden
        self.read = nn.Linear(4 + hidden, 4 * hidden)
        self.input_gate = nn.Linear(hidden + 2, 1)
        self.forget_gate = nn.Linear(hidden + 2, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.01, 0.01)
        # As published: forget almost nothing, and take small steps.
        nn.init.uniform_(self.forget_gate.bias, 4, 5)
        nn.init.uniform_(self.input_gate.bias, -5, -4)

    def init(self, fast: Weights) -> RuleState:
        """Zeros for every coordinate."""
        first = next(iter(fast.values()))
        zeros = first.new_zeros(self.hidden, sum(w.numel() for w in fast.values()))
        return RuleState(zeros, zeros, zeros[:1], zeros[:1])

    def step(
        self, k: int, fast: Weights, grads: Weights, loss: Tensor, state: RuleState
    ) -> tuple[Weights, RuleState]:
        """theta_t = f_t * theta_(t-1) - i_t * gradient, all coordinates at once."""
        theta = torch.cat([w.flatten() for w in fast.values()]).unsqueeze(0)
        grad = torch.cat([grads[n].flatten() for n in fast])
        losses = preprocess(loss).unsqueeze(1).expand(2, len(grad))
        seen = torch.cat([losses, preprocess(grad), state.h])
        i, f, o, g = columns(self.read, seen).chunk(4)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        before = torch.cat([h, theta, state.input_gate])
        input_gate = torch.sigmoid(columns(self.input_gate, before))
        before = torch.cat([h, theta, state.forget_gate])
        forget_gate = torch.sigmoid(columns(self.forget_gate, before))
        moved = (forget_gate * theta - input_gate * grad).squeeze(0)
        pieces = moved.split([w.numel() for w in fast.values()])
        weights = {n: p.reshape(fast[n].shape) for n, p in zip(fast, pieces, strict=True)}
        return weights, RuleState(h, cell, input_gate, forget_gate)


class MetaLSTM(NetworkLearner):
    """Meta-LSTM: an LSTM learns how a network's weights should move on a support set.

    The weights are the cell state of an LSTM: its forget gate shrinks them, its input gate is a
    learning rate, and both are computed per coordinate from the loss, the gradient and the weight.
    The start of the weights (the cell's first state) is learned too.

        theta_t = f_t * theta_(t-1) - i_t * grad L(theta_(t-1))
        i_t = sigma(W_I [h_t, theta_(t-1), i_(t-1)] + b_I),  f_t likewise
        h_t = LSTM(preprocess(loss, gradient))

    Args:
        net: from `(rows, *features)` to `(rows, way)` logits or `(rows, *values)`.
        inner_steps: updates per task; the paper's 12 (1-shot) or 8 (5-shot) passes.
        test_steps: updates at meta-test; `inner_steps` by default.
        inner_batch: examples per update; the whole support if None.
        hidden: size of the LSTM that reads loss and gradient.
        normalization: `support` as published (statistics of this episode's support), `task` or
            `frozen`.
        fast: what a task moves: `all`, the `last` layer, or an adapter such as `lora` and the last
            layer.
        engine: `loop`, `vmap`, or the faster one for this network and device.

    Shapes:
        support and query `(tasks, examples, *features)`; logits `(tasks, queries, way)` or
        values `(tasks, queries, *values)`.

    Deviations:
        The statistics for the queries are those of the whole support after the last update, not
        a running average over the updates. The gates see the previous gates after the sigmoid, as
        in the paper's equations, not before it, as in the authors' code. The authors divide the
        learner's gradient by the batch size a second time and, in meta-training, normalise queries
        by their own batch; here neither is done.

    Example:
        >>> import kshot
        >>> from torch import nn
        >>> learner = kshot.MetaLSTM(nn.Sequential(kshot.nn.MLP(64), nn.Linear(40, 3)))
        >>> digits = kshot.load("digits", flat=True)["test"]
        >>> episode = kshot.draw(digits, kshot.EpisodeSpec(way=3), 0, [0])
        >>> learner.adapt(episode.support)(episode.query.x).shape
        torch.Size([1, 45, 3])

    Reference:
        @inproceedings{ravi2017optimization,
          title={Optimization as a Model for Few-Shot Learning},
          author={Ravi, Sachin and Larochelle, Hugo},
          booktitle={International Conference on Learning Representations}, year={2017}}
    """

    family: ClassVar[str] = "gradient"
    fast: ClassVar[str] = "the network's weights, moved by an LSTM"

    def __init__(
        self,
        net: nn.Module,
        *,
        inner_steps: int = 8,
        test_steps: int | None = None,
        inner_batch: int | None = None,
        hidden: int = 20,
        normalization: Normalization = "support",
        fast: Fast = "all",
        engine: Engine = "auto",
    ) -> None:
        head = InnerLoop(
            net,
            LSTMRule(hidden),
            steps=inner_steps,
            test_steps=test_steps,
            gradient="detached",
            fast=fast_parameters(net, fast),
            normalization=normalization,
            batch_size=inner_batch,
            engine=engine,
        )
        super().__init__(head)
        self.order_free = inner_batch is None  # mini-batches are drawn by position
