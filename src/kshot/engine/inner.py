"""The one inner loop of the library.

A gradient-based method is a choice of what is fast, an update rule, a loss and a gradient mode;
this file turns such a choice into the trajectory of the fast weights.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from kshot.errors import ConfigError, DifferentiationError

Weights = dict[str, Tensor]
"""Parameters by name."""

GradientMode = Literal["unrolled", "detached", "none"]
"""How the outer loop sees the inner gradient:

- `unrolled`: it is differentiated (MAML);
- `detached`: it is a constant, the update rule is differentiated (FOMAML, Meta-LSTM);
- `none`: nothing is differentiated (Reptile, and every learner at meta-test).
"""


class UpdateRule(Protocol):
    """How the fast weights move; its state is carried, never stored."""

    def init(self, fast: Weights) -> Any:
        """The state before the first step."""
        ...

    def step(
        self, k: int, fast: Weights, grads: Weights, loss: Tensor, state: Any
    ) -> tuple[Weights, Any]:
        """The fast weights and the state after step k (from 0)."""
        ...


def inner_update(fast: Mapping[str, Tensor], grads: Mapping[str, Tensor], lr: float) -> Weights:
    """One step of the inner loop: `theta' = theta - alpha * grad L(theta)` (MAML, eq. 1).

    Args:
        fast: weights by name.
        grads: their gradients, by the same names.
        lr: alpha, for a loss that is a *mean* over the support (see the docs for the papers' sums).
    """
    return {name: weight - lr * grads[name] for name, weight in fast.items()}


class SGD:
    """`w <- w - lr * gradient`.

    Raises:
        ConfigError: for a learning rate that is not positive.
    """

    def __init__(self, lr: float) -> None:
        self.lr = positive("inner_lr", lr)

    def init(self, fast: Weights) -> None:
        """No state."""

    def step(
        self, k: int, fast: Weights, grads: Weights, loss: Tensor, state: None
    ) -> tuple[Weights, None]:
        """One step down the gradient."""
        return inner_update(fast, grads, self.lr), None


class Momentum:
    """SGD with momentum and weight decay, as PyTorch's: `v <- m v + (1 - d) (gradient + c w)`.

    Args:
        lr: the learning rate.
        momentum: m.
        dampening: d; the first velocity is the whole gradient.
        weight_decay: c.

    Raises:
        ConfigError: for a learning rate that is not positive, or factors outside of 0 to 1.
    """

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self.lr = positive("inner_lr", lr)
        for name, value in (("momentum", momentum), ("dampening", dampening)):
            if not 0 <= value < 1:
                raise ConfigError(f"{name}={value} must be from 0 to below 1.")
        if not 0 <= weight_decay < math.inf:
            raise ConfigError(f"weight_decay={weight_decay} must be 0 or more, and finite.")
        self.momentum, self.dampening, self.weight_decay = momentum, dampening, weight_decay

    def init(self, fast: Weights) -> Weights:
        """The velocities."""
        return {name: torch.zeros_like(w) for name, w in fast.items()}

    def step(
        self, k: int, fast: Weights, grads: Weights, loss: Tensor, state: Weights
    ) -> tuple[Weights, Weights]:
        """One step along the velocity."""
        share = 1 - self.dampening if k else 1.0
        velocity = {
            n: self.momentum * state[n] + share * (grads[n] + self.weight_decay * w)
            for n, w in fast.items()
        }
        return inner_update(fast, velocity, self.lr), velocity


class Adam:
    """Adam (Kingma and Ba 2015) with moments that start at zero for each task.

    Raises:
        ConfigError: for a learning rate that is not positive.
    """

    def __init__(
        self, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.lr, self.betas, self.eps = positive("inner_lr", lr), betas, eps

    def init(self, fast: Weights) -> tuple[Weights, Weights]:
        """First and second moments."""
        zeros = {name: torch.zeros_like(w) for name, w in fast.items()}
        return zeros, zeros

    def step(
        self,
        k: int,
        fast: Weights,
        grads: Weights,
        loss: Tensor,
        state: tuple[Weights, Weights],
    ) -> tuple[Weights, tuple[Weights, Weights]]:
        """One step along the corrected first moment over the root of the second."""
        b1, b2 = self.betas
        first = {n: b1 * m + (1 - b1) * grads[n] for n, m in state[0].items()}
        second = {n: b2 * v + (1 - b2) * grads[n] ** 2 for n, v in state[1].items()}
        moved = {}
        for name, w in fast.items():
            m, v = first[name] / (1 - b1 ** (k + 1)), second[name] / (1 - b2 ** (k + 1))
            # Without the tiny term, the root's own derivative at 0 would be infinite.
            moved[name] = w - self.lr * m / ((v + 1e-30).sqrt() + self.eps)
        return moved, (first, second)


def positive(name: str, value: float) -> float:
    """The value, if it is a positive, finite number; ConfigError otherwise."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value} must be greater than 0, and finite.")
    return float(value)


def trajectory(
    loss: Callable[[Weights, int], Tensor],
    fast: Mapping[str, Tensor],
    rule: UpdateRule,
    steps: int,
    *,
    gradient: GradientMode = "unrolled",
) -> Iterator[tuple[Weights, Any]]:
    """The fast weights and the rule's state, before the first step and after each one.

    Args:
        loss: the inner loss of the fast weights at step k.
        fast: where the weights start, for one task.
        rule: how they move.
        steps: how many times.
        gradient: how the outer loop sees the inner gradient.

    Raises:
        DifferentiationError: under `torch.inference_mode`, where gradients are silently zero.
    """
    if torch.is_inference_mode_enabled():
        raise DifferentiationError(
            "the inner loop needs gradients, but torch.inference_mode() is on, under which they "
            "can silently be zero: use torch.no_grad() instead, or no context at all."
        )
    with torch.set_grad_enabled(torch.is_grad_enabled() and gradient != "none"):
        weights = dict(fast)
        state = rule.init(weights)
    yield weights, state
    for k in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient == "unrolled"):
            grads, value = torch.func.grad_and_value(loss)(weights, k)
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient != "none"):
            weights, state = rule.step(k, weights, grads, value, state)
        yield weights, state


def adapt_weights(
    loss: Callable[[Weights, int], Tensor],
    fast: Mapping[str, Tensor],
    rule: UpdateRule,
    steps: int,
    *,
    gradient: GradientMode = "unrolled",
) -> Weights:
    """The fast weights at the end of the `trajectory`."""
    return deque(trajectory(loss, fast, rule, steps, gradient=gradient), maxlen=1).pop()[0]
