"""The outer loop's optimizers and schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from kshot.errors import ConfigError, unknown

Optimizer = Literal["adam", "sgd"] | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""A name, or anything that makes a torch optimizer of the parameters."""

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def make_optimizer(
    optimizer: Optimizer,
    parameters: list[nn.Parameter],
    lr: float,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """The torch optimizer.

    Args:
        optimizer: a name, or what makes it; the other arguments are for those with a name.
        parameters: that it moves.
        lr: the learning rate.
        momentum: of SGD.
        weight_decay: added to the gradients, times the weights.

    Raises:
        ConfigError: for an unknown name or an impossible value.
    """
    if callable(optimizer):
        return optimizer(parameters)
    if optimizer not in _OPTIMIZERS:
        raise unknown("optimizer", optimizer, _OPTIMIZERS)
    if not 0 < lr < math.inf:
        raise ConfigError(f"lr={lr} must be greater than 0 and finite.")
    if not (0 <= momentum < 1 and 0 <= weight_decay < math.inf):
        raise ConfigError(
            f"momentum={momentum} must be from 0 to below 1, weight_decay={weight_decay} 0 or more."
        )
    if momentum and optimizer != "sgd":
        raise ConfigError(f"momentum={momentum} is SGD's: leave it out, or set optimizer=sgd.")
    options = {"momentum": momentum} if momentum else {}
    return _OPTIMIZERS[optimizer](parameters, lr=lr, weight_decay=weight_decay, **options)


def make_schedule(optimizer: torch.optim.Optimizer, schedule: str, steps: int) -> LambdaLR:
    """The learning rate over the steps.

    Args:
        optimizer: whose rates move.
        schedule: `constant`, `linear` (to 0), `cosine` (to 0) or `halve:N` (every N steps).
        steps: of the whole run.

    Raises:
        ConfigError: for an unknown schedule.
    """
    name, _, every = schedule.partition(":")
    if name == "halve" and every.isdigit() and int(every) > 0:
        return LambdaLR(optimizer, lambda step: 0.5 ** (step // int(every)))
    factors: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "linear": lambda step: 1 - step / steps,
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)),
    }
    if schedule not in factors:
        raise unknown("schedule", schedule, [*factors, "halve:N"])
    return LambdaLR(optimizer, factors[schedule])
