"""Batch normalisation whose statistics are always one task's, never the meta-batch's.

The layer has no policy of its own. Outside any context it behaves as PyTorch's `BatchNorm`; a
learner states where the statistics come from with the context managers of this module:

    with batch_statistics(groups):        each group of rows is normalised by its own statistics
    with batch_statistics() as seen:      one group; `seen` collects each layer's statistics ...
    with given_statistics(seen):          ... so that other rows can be normalised by them
    with running_statistics():            those accumulated in training, or pretrained

The context is a `ContextVar`, so threads that serve different learners do not meet.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import ConfigError, EpisodeError

Normalization = Literal["task", "joint", "support", "single", "frozen"]
"""Where the statistics of a task's examples come from (design of the library, "Normalisation"):

- `task`: the batch being forwarded, support when adapting and queries when scoring: transductive;
- `joint`: support and query together in meta-training, running statistics afterwards;
- `support`: the support's statistics, for the queries too;
- `single`: each query alone in one batch with the support (Reptile's inductive evaluation);
- `frozen`: running statistics always (a pretrained network's).
"""

Statistics = tuple[Tensor, Tensor]
"""Mean and biased variance, each `(groups, channels)`."""


@dataclass(frozen=True)
class Groups:
    """Which group (task) each row of a flattened batch belongs to.

    Attributes:
        ids: `(rows,)`, the group of each row.
        count: the number of groups.
    """

    ids: Tensor
    count: int


@dataclass
class _Context:
    source: Literal["batch", "given", "running"]
    groups: Groups | None = None
    update: bool = False
    seen: list[Statistics] = field(default_factory=list)
    collect: bool = False
    given: Iterator[Statistics] = field(default_factory=lambda: iter(()))


_context: ContextVar[_Context | None] = ContextVar("kshot_norm", default=None)


@contextmanager
def _using(context: _Context) -> Iterator[_Context]:
    token = _context.set(context)
    try:
        yield context
    finally:
        _context.reset(token)


@contextmanager
def batch_statistics(
    groups: Groups | None = None, *, update: bool = False, collect: bool = False
) -> Iterator[list[Statistics]]:
    """Normalise each group of rows by its own statistics.

    Args:
        groups: the rows' groups; None makes the whole batch one group.
        update: also move the running statistics (by the mean over groups).
        collect: fill the yielded list with each layer's statistics, in the order of the calls.
    """
    with _using(_Context("batch", groups, update, collect=collect)) as context:
        yield context.seen


@contextmanager
def given_statistics(
    statistics: Sequence[Statistics], groups: Groups | None = None
) -> Iterator[None]:
    """Normalise by statistics that `batch_statistics(collect=True)` has collected."""
    with _using(_Context("given", groups, given=iter(statistics))):
        yield


@contextmanager
def running_statistics() -> Iterator[None]:
    """Normalise by the running statistics, in training mode as well."""
    with _using(_Context("running")):
        yield


class BatchNorm(nn.Module):
    """Batch normalisation over the rows of one task (Ioffe and Szegedy 2015).

    Input `(rows, channels, *positions)`, output of the same shape. Parameters and buffers carry
    PyTorch's names, so that its weights load unchanged.

    Args:
        channels: size of axis 1.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics.
        scale: learn a factor per channel (`weight`). MAML's own code has none.
        shift: learn an offset per channel (`bias`).
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        scale: bool = True,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if scale else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if shift else None)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # PyTorch's layers count batches
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` by the statistics that the context asks for."""
        context = _context.get() or _Context("batch" if self.training else "running", update=True)
        if context.source == "running":
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if context.source == "given":
            return self._normalise(x, next(context.given), context.groups)
        _check_values(x, context.groups)
        if context.groups is None and not context.collect:
            mean, var = (self.running_mean, self.running_var) if context.update else (None, None)
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
        statistics = _statistics(x, context.groups)
        if context.collect:
            context.seen.append(statistics)
        if context.update:
            self._move_running(x, statistics, context.groups)
        return self._normalise(x, statistics, context.groups)

    def _normalise(self, x: Tensor, statistics: Statistics, groups: Groups | None) -> Tensor:
        mean, var = statistics
        factor = (var + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        offset = -mean * factor
        if self.bias is not None:
            offset = offset + self.bias
        return x * _per_row(factor, x, groups) + _per_row(offset, x, groups)

    @torch.no_grad()
    def _move_running(self, x: Tensor, statistics: Statistics, groups: Groups | None) -> None:
        mean, var = (s.detach() for s in statistics)
        # Each group's variance by its own count: a share of the tasks then moves by its share.
        rows = len(x) if groups is None else _members(groups, x.dtype).sum(0).unsqueeze(1)
        count = torch.as_tensor(rows * x[0, 0].numel()).to(x)
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.mean(0), self.momentum)
        self.running_var.lerp_(unbiased.mean(0), self.momentum)


def _check_values(x: Tensor, groups: Groups | None) -> None:
    """Raise EpisodeError where a group's statistics would be of one value, which they make 0."""
    if x[0, 0].numel() > 1:
        return
    rows = len(x) if groups is None else int(torch.bincount(groups.ids).min())
    if rows == 1:
        raise EpisodeError(
            "a task has one example here, which batch normalisation by that task's own statistics "
            "would make the same whatever it is: give more examples, or another normalization, "
            "such as 'support' or 'frozen'."
        )


def _per_row(values: Tensor, x: Tensor, groups: Groups | None) -> Tensor:
    """`(groups, channels)` values in a shape that broadcasts against the rows of `x`."""
    rows = values if groups is None else values[groups.ids]
    return rows.reshape(rows.shape + (1,) * (x.dim() - 2))


def _group_mean(x: Tensor, groups: Groups | None) -> Tensor:
    """Mean over each group's rows and all positions, `(groups, channels)`."""
    rows = x.flatten(2).mean(2) if x.dim() > 2 else x
    if groups is None:
        return rows.mean(0, keepdim=True)
    # A product, because scattered additions are not deterministic on a GPU.
    members = _members(groups, x.dtype)
    return (members / members.sum(0)).T @ rows


def _members(groups: Groups, dtype: torch.dtype) -> Tensor:
    """`(rows, groups)`, 1 where the row is the group's."""
    return F.one_hot(groups.ids, groups.count).to(dtype)


def _statistics(x: Tensor, groups: Groups | None) -> Statistics:
    mean = _group_mean(x, groups)
    return mean, _group_mean((x - _per_row(mean, x, groups)) ** 2, groups)


_FOREIGN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any layer normalises over the batch, so that a policy matters."""
    return any(isinstance(m, (BatchNorm, *_FOREIGN)) for m in module.modules())


def convert_batch_norm(module: nn.Module, *, warn: bool = True) -> list[str]:
    """Replace PyTorch's batch-normalisation layers, in place, by this module's.

    Parameters and running statistics are kept. Returns the names of the layers replaced, of which
    a warning tells who has built the network.

    Raises:
        ConfigError: for other layers that share statistics over the batch, such as subclasses
            with a forward of their own, whose policy could not be kept.
    """
    replaced: dict[str, BatchNorm] = {}
    made: dict[nn.Module, BatchNorm] = {}
    for name, child in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(child, nn.modules.batchnorm._BatchNorm):
            continue
        activated = isinstance(child, nn.BatchNorm2d) and _activated(child)
        if not (type(child) in _FOREIGN or activated) or not name:
            raise ConfigError(
                f"layer {name!r} ({type(child).__name__}) normalises over the batch in its own "
                "way: replace it by kshot.nn.BatchNorm, so that its statistics are one task's."
            )
        if child.running_mean is None:
            raise ConfigError(
                f"layer {name!r} keeps no running statistics (track_running_stats=False), which "
                "policies such as 'joint' and 'frozen' answer by: let it keep them."
            )
        # A layer that stands in two places stays one layer.
        made[child] = replaced[name] = made.get(child) or _ours(child, activated)
        parent = module.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], replaced[name])
    names = list(replaced)
    if names and warn:
        warnings.warn(
            f"{len(names)} BatchNorm layer(s) replaced by kshot.nn.BatchNorm, whose statistics "
            f"are one task's: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}.",
            stacklevel=2,
        )
    return names


class _Activated(BatchNorm):
    """Batch normalisation with a dropout and an activation behind it, as timm joins them."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, drop, activate."""
        out: Tensor = self.act(self.drop(super().forward(x)))
        return out


def _activated(layer: nn.Module) -> bool:
    """Whether it is timm's layer of that kind."""
    return type(layer).__name__ == "BatchNormAct2d" and hasattr(layer, "act")


def _ours(layer: Any, activated: bool) -> BatchNorm:
    ours = (_Activated if activated else BatchNorm)(
        layer.num_features,
        eps=layer.eps,
        momentum=0.1 if layer.momentum is None else layer.momentum,
        scale=layer.affine,
        shift=layer.affine,
    )
    ours.weight, ours.bias = layer.weight, layer.bias
    ours.running_mean, ours.running_var = layer.running_mean, layer.running_var
    if isinstance(ours, _Activated):
        ours.drop, ours.act = layer.drop, layer.act
    return ours.train(layer.training)
