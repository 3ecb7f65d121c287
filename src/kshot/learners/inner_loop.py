"""The head of every gradient-based method: a network whose fast weights move on the support."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from kshot import philox
from kshot.engine import (
    Engine,
    GradientMode,
    UpdateRule,
    Weights,
    choose_engine,
    even_groups,
    join_groups,
    over_tasks,
    trajectory,
)
from kshot.engine.tasks import task_slice
from kshot.episodes.augment import AUGMENTATIONS, changed, uniforms
from kshot.errors import ConfigError, EpisodeError, unknown
from kshot.functional import masked_logits
from kshot.learners.base import Head, MetaLearner, TaskKind, TaskShape, example_losses
from kshot.nn import add_adapter, output_size
from kshot.nn.norm import (
    BatchNorm,
    Normalization,
    Statistics,
    batch_statistics,
    convert_batch_norm,
    given_statistics,
    running_statistics,
)
from kshot.types import Examples, Features, is_whole, unlabelled

Reduction = Literal["mean", "sum/shot"]
"""Of the inner loss: its mean, or, as in MAML's code, its sum divided by the shot (way x mean)."""


Sampling = Literal["cycle", "replace"]
"""Of mini-batches: reshuffled passes over the support, or each one from all of it."""


Fast = str | dict[str, Any]
"""What a task moves, by name: `all` of the network, its `last` layers, or an adapter (see
`kshot.nn.adapters`) and the last layer; a table has the options beside the name."""


def fast_parameters(net: nn.Module, fast: Fast) -> Callable[[str], bool]:
    """Whether a parameter is what `fast` names; adapters are added to the network.

    Raises:
        ConfigError: for an unknown adapter or option, or a network that cannot have it.
    """
    if fast == "all":
        return lambda parameter: True
    # The last layer is no pretrained one: it moves as a whole.
    moving = {*adapter_names(net, fast), *add_adapter(net, "last")}
    return moving.__contains__


def adapter_names(net: nn.Module, adapter: Fast) -> list[str]:
    """Add an adapter by its name, or by a table of its name and options; what it moves.

    Raises:
        ConfigError: as `fast_parameters`.
    """
    if isinstance(adapter, str):
        return add_adapter(net, adapter)
    options = {key: value for key, value in adapter.items() if key != "name"}
    return add_adapter(net, adapter.get("name", ""), **options)


class FastWeights(NamedTuple):
    """What a support set has decided.

    Attributes:
        weights: the adapted weights.
        rule: the update rule's last state, where it is kept.
        present: the classes a task has; None for regression.
        statistics: the support's, where the queries are normalised by them.
        support: the support itself, where the queries are normalised together with it.
    """

    weights: Weights
    rule: Any
    present: Tensor | None
    statistics: tuple[Statistics, ...] = ()
    support: Examples | None = None


class InnerLoop(Head):
    """Adapts the fast part of `net` to each support set by an update rule.

    Args:
        net: from `(rows, *features)` to `(rows, way)` logits or `(rows, *values)`.
        rule: how the fast weights move; a module if it has weights of its own.
        steps: inner steps in meta-training.
        test_steps: inner steps otherwise; as in meta-training by default.
        gradient: how the outer loop sees the inner gradient, in meta-training.
        fast: which parameters move, by name; all by default. The rest is slow, and so is what
            does not require a gradient.
        normalization: `task`, `support`, `single` or `frozen`.
        reduction: of the inner loss.
        batch_size: examples per inner step, drawn by the episode's key; the whole support if None.
        test_batch_size: the same at meta-test; as in meta-training by default.
        sampling: how mini-batches are drawn.
        keep_rule_state: give it with the fast weights.
        augment: names of augmentations, by which each step sees other copies of its images.
        engine: how to run over tasks.

    Raises:
        ConfigError: for negative steps, a network with nothing to move, or a policy that needs a
            joint batch.
    """

    def __init__(
        self,
        net: nn.Module,
        rule: UpdateRule,
        *,
        steps: int,
        test_steps: int | None = None,
        gradient: GradientMode = "unrolled",
        fast: Callable[[str], bool] = lambda name: True,
        normalization: Normalization = "task",
        reduction: Reduction = "mean",
        batch_size: int | None = None,
        test_batch_size: int | None = None,
        sampling: Sampling = "cycle",
        keep_rule_state: bool = False,
        augment: Sequence[str] = (),
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        convert_batch_norm(net)
        for count in (steps, 0 if test_steps is None else test_steps):
            _check_steps(count)
        if normalization == "joint":
            raise ConfigError(
                "normalization='joint' needs support and query in one batch, which an inner loop "
                "over the whole network has not: choose 'task', 'support', 'single' or 'frozen'."
            )
        if reduction not in ("mean", "sum/shot"):
            raise ConfigError(f"reduction={reduction!r} is neither 'mean' nor 'sum/shot'.")
        if sampling not in ("cycle", "replace"):
            raise ConfigError(f"sampling={sampling!r} is neither 'cycle' nor 'replace'.")
        for name, size in (("inner_batch", batch_size), ("test_batch", test_batch_size)):
            if size is not None and not is_whole(size, 1):
                raise ConfigError(f"{name}={size}: a mini-batch has at least 1 example.")
        self.net, self.rule = net, rule
        self.steps, self.test_steps = steps, steps if test_steps is None else test_steps
        self.gradient: GradientMode = gradient
        self.fast_names = [n for n, p in net.named_parameters() if p.requires_grad and fast(n)]
        if not self.fast_names:
            raise ConfigError(
                "this network has no weights that a task may move: it has none at all, or they are "
                "frozen (requires_grad=False)."
            )
        self.normalization: Normalization = normalization
        self.reduction, self.batch_size = reduction, batch_size
        self.test_batch_size = test_batch_size or batch_size
        self.sampling, self.keep_rule_state = sampling, keep_rule_state
        for name in augment:
            if name not in AUGMENTATIONS:
                raise unknown("augmentation", name, AUGMENTATIONS)
        if augment and engine == "vmap":
            raise ConfigError("augment has no vmap: choose engine='auto' or 'loop'.")
        self.augment = [AUGMENTATIONS[name] for name in augment]
        self.engine: Engine = "loop" if augment else engine

    @contextmanager
    def at_test(self, steps: int) -> Iterator[None]:
        """Take so many inner steps at meta-test, within the block."""
        _check_steps(steps)
        usual, self.test_steps = self.test_steps, steps
        try:
            yield
        finally:
            self.test_steps = usual

    def fast_weights(self) -> Weights:
        """Where the fast weights start."""
        parameters = dict(self.net.named_parameters())
        return {name: parameters[name] for name in self.fast_names}

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> FastWeights:
        """Run the inner loop for each task."""
        present = None
        if not support.y.is_floating_point():
            present = support.present()
        elif self.reduction == "sum/shot":
            raise EpisodeError("reduction='sum/shot' is for classification: set it to 'mean'.")
        engine = choose_engine(self.engine, list(self.fast_weights().values()), support.x)
        steps = self.steps if self.training else self.test_steps
        indices, states = [], []
        for index, (part,) in even_groups(support):
            batches = self._batches(part.size, steps, key[index])
            views = self._views(part, batches, steps, key[index])
            present_here = None if present is None else present[index]
            states.append(
                over_tasks(
                    self._fit_task, part.x, part.y, present_here, batches, views, engine=engine
                )
            )
            indices.append(index)
        weights, rule, statistics = join_groups(indices, states)
        kept = unlabelled(support.x, support.mask) if self.normalization == "single" else None
        return FastWeights(weights, rule, present, statistics, kept)

    def predict(self, state: FastWeights, x: Features, mask: Tensor | None = None) -> Tensor:
        """Logits `(tasks, queries, way)` or values `(tasks, queries, *values)`."""
        engine = choose_engine(self.engine, list(state.weights.values()), x)
        queries = unlabelled(x, mask)
        indices, outputs = [], []
        parts = [queries] if state.support is None else [queries, state.support]
        for index, group in even_groups(*parts):
            fast = (state.weights, state.statistics)
            if len(index) < queries.tasks:  # else in their order: nothing to copy
                fast = task_slice(fast, index)
            inputs = [part.x for part in group]
            outputs.append(over_tasks(self._predict_task, *fast, *inputs, engine=engine))
            indices.append(index)
        output: Tensor = join_groups(indices, outputs)
        if state.present is None:
            return output
        return _logits(output, state.present)

    def _fit_task(
        self,
        x: Features,
        y: Tensor,
        present: Tensor | None,
        batches: Tensor | None,
        views: Tensor | None,
    ) -> tuple[Weights, Any, tuple[Statistics, ...]]:
        steps = self.steps if self.training else self.test_steps
        # In MAML's code the inner loss is the sum over the support divided by the shot.
        sums = self.reduction == "sum/shot" and present is not None
        factor = present.sum() if sums and present is not None else 1

        def loss(weights: Weights, k: int) -> Tensor:
            rows = slice(None) if batches is None else batches[k]
            seen = task_slice(x, rows)
            if views is not None:
                seen = changed(seen, self.augment, views[k])
            output = self._forward(weights, seen)
            if present is not None:
                output = _logits(output, present)
            return example_losses(output, y[rows]).mean() * factor

        gradient = self.gradient if self.training else "none"
        path = trajectory(loss, self.fast_weights(), self.rule, steps, gradient=gradient)
        weights, state = deque(path, maxlen=1).pop()
        kept = state if self.keep_rule_state else ()
        if self.normalization != "support":
            return weights, kept, ()
        with batch_statistics(collect=True) as seen:
            functional_call(self.net, weights, (x,))
        return weights, kept, tuple(seen)

    def _forward(self, weights: Weights, x: Features) -> Tensor:
        """The network on one task's batch, normalised by that batch or by running statistics."""
        frozen = self.normalization == "frozen"
        with running_statistics() if frozen else batch_statistics():
            output: Tensor = functional_call(self.net, weights, (x,))
        return output

    def _predict_task(
        self,
        weights: Weights,
        statistics: tuple[Statistics, ...],
        x: Features,
        support: Features | None = None,
    ) -> Tensor:
        if support is not None:

            def alone(query: Features) -> Tensor:
                return self._forward(weights, _append(support, query))[-1]

            each: Tensor = torch.func.vmap(alone, randomness="different")(x)
            return each
        if not statistics:
            return self._forward(weights, x)
        with given_statistics(statistics):
            output: Tensor = functional_call(self.net, weights, (x,))
        return output

    def _views(
        self, part: Examples, batches: Tensor | None, steps: int, key: Tensor
    ) -> Tensor | None:
        """Uniforms `(tasks, steps, augmentations, rows, 4)` that decide how images are changed."""
        if not self.augment or not steps:
            return None
        if not isinstance(part.x, Tensor) or part.x.dim() != 5:
            raise EpisodeError(
                "augment is for images (channels, height, width), which these are not: leave it "
                "away."
            )
        rows = part.size if batches is None else batches.shape[-1]
        return uniforms("views", key, steps, len(self.augment), rows)

    def _batches(self, size: int, steps: int, key: Tensor) -> Tensor | None:
        """Row numbers `(tasks, steps, batch)`: reshuffled passes over the support, cut up."""
        batch = self.batch_size if self.training else self.test_batch_size
        if batch is None or batch >= size or steps == 0:
            return None
        anew = self.sampling == "replace"
        passes = steps if anew else -(-steps * batch // size)
        base = philox.key_of("batches")
        rows = [
            philox.permutation(philox.words(base, i, passes * size).reshape(passes, size))
            for i in key.tolist()
        ]
        if anew:
            order = np.stack([r[:, :batch] for r in rows])
        else:
            order = np.stack([r.reshape(-1)[: steps * batch].reshape(steps, batch) for r in rows])
        return torch.from_numpy(order).to(key.device)


def _check_steps(steps: int) -> None:
    if not is_whole(steps, 0):
        raise ConfigError(f"{steps} inner steps: give a whole number that is not negative.")


def _logits(output: Tensor, present: Tensor) -> Tensor:
    """Those of the classes that there are, of a network for at least so many."""
    way = present.shape[-1]
    if output.shape[-1] < way:
        raise EpisodeError(
            f"way={way}, but the network ends in {output.shape[-1]} outputs: build it for "
            f"way={way}, or use a learner that serves any way, such as ProtoNet."
        )
    return masked_logits(output[..., :way], present)


def output_layer(features: int, way: int, y_shape: Sequence[int]) -> nn.Module:
    """A linear layer to logits, or to values of a shape."""
    last = nn.Linear(features, way or math.prod(y_shape))
    if way or len(y_shape) == 1:
        return last
    return nn.Sequential(last, nn.Unflatten(1, tuple(y_shape)))


def _append(support: Features, query: Features) -> Features:
    """One batch of a support and one query, the query last."""
    if isinstance(support, dict):
        return {name: torch.cat([x, query[name][None]]) for name, x in support.items()}
    return torch.cat([support, query[None]])


class NetworkLearner(MetaLearner):
    """A learner whose fast weights are a whole network's: the encoder is the identity.

    Args:
        head: the inner loop over the network.
    """

    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification", "regression")
    symmetric: ClassVar[bool] = False  # the last layer starts from learned rows
    any_way: ClassVar[bool] = False

    head: InnerLoop

    def __init__(self, head: InnerLoop) -> None:
        super().__init__(nn.Identity(), head, normalization=head.normalization)

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """The encoder gets a linear layer for the tasks' classes or values on top."""
        last = output_layer(output_size(encoder, shape.x_shape), shape.way, shape.y_shape)
        net: Any = nn.Sequential(encoder, last)
        return cls(net, **options)

    @property
    def body(self) -> nn.Module:
        """The network without its last layer, as `for_tasks` has put it together."""
        net = self.head.net
        if not (isinstance(net, nn.Sequential) and len(net) == 2):
            raise ConfigError(
                f"this {type(self).__name__} was not built as an encoder and a last layer: it has "
                "no encoder to start another learner from."
            )
        return net[0]


def norm_parameters(net: nn.Module) -> set[str]:
    """Names of the batch-normalisation parameters."""
    convert_batch_norm(net)
    norms: list[tuple[str, Any]] = [
        (name, m) for name, m in net.named_modules() if isinstance(m, BatchNorm)
    ]
    return {
        f"{name}.{p}".lstrip(".") for name, m in norms for p, _ in m.named_parameters(recurse=False)
    }
