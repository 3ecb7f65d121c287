"""The contract that every method fits: a shared encoder and a head that learns from a support set.

Episode -> encoder (slow, one forward for the whole meta-batch)
        -> head.fit(support) -> state (fast)  -> head.predict(state, query) -> output
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.engine.tasks import task_count
from kshot.errors import ConfigError, EpisodeError, unknown
from kshot.functional import mean_loss
from kshot.nn.norm import (
    Groups,
    Normalization,
    Statistics,
    batch_statistics,
    convert_batch_norm,
    given_statistics,
    has_batch_norm,
    running_statistics,
)
from kshot.types import (
    Episode,
    Examples,
    Features,
    Gaussian,
    Output,
    concatenate,
    first_tensor,
    unlabelled,
)

TaskKind = Literal["classification", "regression"]


class TaskShape(NamedTuple):
    """What a learner has to know of its tasks before it is built.

    Attributes:
        x_shape: shape of one example's features.
        way: classes per task; 0 for regression.
        length: the longest support set, in examples.
        y_shape: shape of one value, for regression.
        classes: of the whole split to train on.
    """

    x_shape: tuple[int, ...]
    way: int
    length: int
    y_shape: tuple[int, ...] = ()
    classes: int = 0


class Head(nn.Module):
    """Learns from embedded support sets, one state per task.

    Attributes:
        transductive: whether `fit` is given the queries.
    """

    transductive: bool = False

    def fit(self, support: Examples, *, query: Examples | None = None, key: Tensor) -> Any:
        """The state that each task's support set decides.

        Args:
            support: embedded support sets.
            query: embedded, unlabelled queries; only transductive heads receive them.
            key: `(tasks,)`, the episodes' counters.

        Returns:
            A tree of tensors, task axis first. Nothing is stored on the module.
        """
        raise NotImplementedError

    def predict(self, state: Any, x: Features, mask: Tensor | None = None) -> Output:
        """Outputs for embedded queries `(tasks, queries, *features)`."""
        raise NotImplementedError

    def loss(self, output: Output, query: Examples) -> Tensor:
        """Cross-entropy, squared error, or the Gaussian's negative log-likelihood; a scalar."""
        return mean_loss(example_losses(output, query.y), query.mask)


def example_losses(output: Output, y: Tensor) -> Tensor:
    """One loss per example (or per value): by what the output and the target are.

    Raises:
        EpisodeError: for values of another shape than the output's.
    """
    if y.is_floating_point():
        values = output.mean if isinstance(output, Gaussian) else output
        if values.shape != y.shape:
            raise EpisodeError(
                f"the learner answers with values of shape {tuple(values.shape)}, but those of the "
                f"tasks are {tuple(y.shape)}: build it for the shape that one example's value has."
            )
    if isinstance(output, Gaussian):
        losses: Tensor = -torch.distributions.Normal(output.mean, output.std).log_prob(y)
        return losses
    if y.is_floating_point():
        return (output - y) ** 2
    return F.cross_entropy(output.flatten(0, -2), y.flatten(), reduction="none").reshape(y.shape)


class Adapted(NamedTuple):
    """What one support set per task has decided: the head's state and the norm statistics."""

    head: Any
    statistics: tuple[Statistics, ...]


@dataclass(frozen=True)
class Predictor:
    """An adapted learner: call it on new examples `(tasks, queries, *features)`."""

    learner: MetaLearner
    state: Adapted

    def __call__(self, x: Features, mask: Tensor | None = None) -> Output:
        """Logits, values or a Gaussian for each query."""
        return self.learner.predict(self.state, x, mask)


class MetaLearner(nn.Module):
    """An encoder shared by all tasks and a head that is fitted to each.

    Args:
        encoder: from `(rows, *features)` to `(rows, features)`; sees real examples only.
        head: what learns from a support set.
        normalization: where the encoder's batch statistics come from.

    Attributes:
        normalizes: whether any layer normalises over the batch, so that the policy matters.
        family: the idea behind the method, in a word or two.
        fast: what a support set decides, in a few words.
        tasks: the kinds of task that the method is for.
        symmetric: permuting a task's classes permutes the logits and changes nothing else.
        any_way: tasks may have more classes than it was built for.
        any_width: examples may have another number of features than it was trained on.
        order_free: the order of the support does not matter.
        needs_query: meta-training asks the adapted learner something.
        trains: there is something to meta-train.
        observes: `observe` is to be called before the first task.
    """

    family: ClassVar[str] = ""
    fast: ClassVar[str] = ""
    tasks: ClassVar[tuple[TaskKind, ...]] = ("classification",)
    symmetric: ClassVar[bool] = True
    any_way: ClassVar[bool] = True
    any_width: ClassVar[bool] = False
    order_free: bool = True
    needs_query: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    observes: ClassVar[bool] = False

    def __init__(
        self, encoder: nn.Module, head: Head, *, normalization: Normalization = "joint"
    ) -> None:
        super().__init__()
        convert_batch_norm(encoder)
        if normalization not in get_args(Normalization):
            raise unknown("normalization", normalization, get_args(Normalization))
        if normalization == "single" and has_batch_norm(encoder):
            raise ConfigError(
                "normalization='single' is for a network that is adapted as a whole, such as "
                "Reptile's; for an encoder choose 'support'."
            )
        self.encoder, self.head = encoder, head
        self.normalization: Normalization = normalization
        self.normalizes = has_batch_norm(self)

    @classmethod
    def for_tasks(cls, encoder: nn.Module, shape: TaskShape, **options: Any) -> Self:
        """The learner for tasks of this shape, as recipes build it."""
        return cls(encoder, **options)

    def observe(self, base: Tensor) -> None:
        """See the embeddings `(examples, features)` of all that there is to train on."""

    @property
    def title(self) -> str:
        """What tables call it: the class, or the name of a variant."""
        return type(self).__name__

    @property
    def body(self) -> nn.Module:
        """The network that embeds: what another learner may start from."""
        return self.encoder

    @property
    def transductive(self) -> bool:
        """Whether one query's answer may change with the other queries."""
        by_norm = self.normalization == "task" and self.normalizes
        return self.head.transductive or by_norm

    def idle(self, examples: int) -> set[str]:
        """Names of parameters that a support of so many examples leaves without a gradient."""
        return set()

    @property
    def pointwise(self) -> bool:
        """Whether there is an encoder, and at meta-test it embeds each example by itself."""
        if isinstance(self.encoder, nn.Identity):
            return False
        return self.normalization in ("joint", "frozen") or not self.normalizes

    def adapt(
        self,
        support: Examples,
        unlabelled: Examples | None = None,
        *,
        key: Tensor | None = None,
    ) -> Predictor:
        """Learn the tasks of `support`; the learner itself does not change.

        After `learner.eval()` (as `meta_train` and `load_run` leave it) the head adapts as at
        meta-test; after `learner.train()` as in meta-training: with its number of inner steps, and
        differentiably, for a loop of your own.

        Args:
            support: labelled examples, `(tasks, examples, *features)`.
            unlabelled: queries, for transductive learners.
            key: `(tasks,)`, the episodes' counters; 0, 1, ... by default.

        Returns:
            What answers queries.

        Raises:
            EpisodeError: if a transductive learner gets no queries, or the tasks are of a kind
                that the learner is not for.
        """
        self.check(support)
        if self.head.transductive and unlabelled is None:
            raise EpisodeError(
                f"{type(self).__name__} is transductive: it learns from the queries too. "
                "Call adapt(support, unlabelled=queries)."
            )
        z, statistics = self.embed(support)
        query = None
        if self.head.transductive and unlabelled is not None:
            query = unlabelled.with_x(self.embed(unlabelled, statistics)[0])
        key = _default_key(support) if key is None else key
        return Predictor(
            self, Adapted(self.head.fit(support.with_x(z), query=query, key=key), statistics)
        )

    def predict(self, state: Adapted, x: Features, mask: Tensor | None = None) -> Output:
        """Outputs of adapted tasks for queries `(tasks, queries, *features)`.

        Raises:
            EpisodeError: for queries of another number of tasks than those adapted to.
        """
        adapted, asked = task_count(state.head), len(first_tensor(x))
        if asked != adapted:
            raise EpisodeError(
                f"there are queries of {asked} tasks, but {adapted} support sets were adapted to: "
                "give (tasks, queries, *features) with the same tasks."
            )
        z, _ = self.embed(unlabelled(x, mask), state.statistics)
        return self.head.predict(state.head, z, mask)

    def forward(self, episode: Episode) -> Output:
        """Adapt to the support and answer the query."""
        hidden = unlabelled(episode.query.x, episode.query.mask)
        predictor = self.adapt(episode.support, hidden, key=episode.key)
        return predictor(episode.query.x, episode.query.mask)

    def loss(self, episode: Episode) -> Tensor:
        """The meta-training objective, a scalar: the query loss after adapting to the support.

        Raises:
            EpisodeError: if the tasks are of a kind that the learner is not for, or a query is of
                a class that its support lacks.
        """
        output, query = self.answer(episode)
        return self.head.loss(output, query)

    def answer(self, episode: Episode) -> tuple[Output, Examples]:
        """What `loss` judges: the outputs for the queries, and these, embedded.

        Raises:
            EpisodeError: as `loss`.
        """
        self.check(episode.support)
        _check_answerable(episode)
        support, query = self.embed_episode(episode)
        hidden = unlabelled(query.x, query.mask) if self.head.transductive else None
        state = self.head.fit(support, query=hidden, key=episode.key)
        return self.head.predict(state, query.x, query.mask), query

    def embed_episode(self, episode: Episode) -> tuple[Examples, Examples]:
        """Support and query embedded for meta-training, in one forward where they share it."""
        support, query = episode.support, episode.query
        if self.normalization != "joint" or not self.training:
            z, statistics = self.embed(support)
            return support.with_x(z), query.with_x(self.embed(query, statistics)[0])
        both = [support, query]
        rows = [part.flat() for part in both]
        with batch_statistics(_groups(both), update=True):
            z = self.encoder(concatenate(rows))
        counts = [int(part.real.sum()) for part in both]
        parts = [p.with_x(p.unflatten(zp)) for p, zp in zip(both, z.split(counts), strict=True)]
        return parts[0], parts[1]

    def embed(
        self, examples: Examples, statistics: tuple[Statistics, ...] = ()
    ) -> tuple[Tensor, tuple[Statistics, ...]]:
        """Embed as at meta-test; returns the statistics that queries may have to share.

        Args:
            examples: of any tasks; padding does not enter the encoder.
            statistics: the support's, where the policy is `support`.
        """
        if isinstance(self.encoder, nn.Identity):
            return cast(Tensor, examples.x), ()
        rows = examples.flat()
        if self.normalization in ("joint", "frozen"):
            with running_statistics():
                return examples.unflatten(self.encoder(rows)), ()
        groups = _groups([examples])
        if statistics:
            with given_statistics(statistics, groups):
                return examples.unflatten(self.encoder(rows)), statistics
        collect = self.normalization == "support"
        with batch_statistics(groups, collect=collect) as seen:
            z = examples.unflatten(self.encoder(rows))
        return z, tuple(seen)

    def check(self, support: Examples) -> None:
        """Raise EpisodeError if the learner is not for such tasks."""
        if not isinstance(support, Examples):
            raise EpisodeError(
                f"a support set is kshot.Examples(x, y, way=...), not {type(support).__name__}: "
                "of an episode, give episode.support."
            )
        if not support.tasks:
            raise EpisodeError("there is no task to adapt to: give at least one support set.")
        empty = ~support.real.any(1)
        if empty.any():
            raise EpisodeError(
                f"the support of task {int(empty.nonzero()[0])} has no example: a task is learned "
                "from at least one."
            )
        kind: TaskKind = "regression" if support.y.is_floating_point() else "classification"
        if kind not in self.tasks:
            raise EpisodeError(
                f"{type(self).__name__} is for {' and '.join(self.tasks)}, "
                f"but these tasks are {kind}."
            )
        if kind == "classification" and support.way < 2:
            raise EpisodeError(
                f"way={support.way}: say how many classes the tasks have, Examples(x, y, way=...)."
            )
        if (
            kind == "classification"
            and not 0 <= int(support.y.min()) <= int(support.y.max()) < support.way
        ):
            raise EpisodeError(
                f"labels run from {int(support.y.min())} to {int(support.y.max())}, but way="
                f"{support.way} allows 0 to {support.way - 1}: number the classes of each task."
            )


def _check_answerable(episode: Episode) -> None:
    """Raise EpisodeError unless the queries are of the support's tasks, kind and classes."""
    support, query = episode.support, episode.query
    if not support.tasks == query.tasks == len(episode.key):
        raise EpisodeError(
            f"an episode's support has {support.tasks} tasks, its query {query.tasks} and its key "
            f"{len(episode.key)}: all three are of the same tasks."
        )
    if support.y.dtype.is_floating_point != query.y.dtype.is_floating_point:
        raise EpisodeError("of support and query, one has labels and the other values.")
    if query.y.is_floating_point():
        return
    outside = query.real & ((query.y < 0) | (query.y >= support.way))
    if outside.any():
        raise EpisodeError(
            f"a query has label {int(query.y[outside][0])}, but way={support.way} allows 0 to "
            f"{support.way - 1}: number the classes of each task."
        )
    missing = query.real & ~support.present().gather(1, query.y)
    if missing.any():
        task, row = missing.nonzero()[0].tolist()
        raise EpisodeError(
            f"a query of task {task} is of class {int(query.y[task, row])}, of which the support "
            "has no example: give every class an example, or leave its queries out."
        )


def _default_key(support: Examples) -> Tensor:
    return torch.arange(support.tasks, device=support.y.device)


def _groups(parts: list[Examples]) -> Groups | None:
    """The task of each row of the flattened parts; None where there is one task."""
    tasks = parts[0].tasks
    if tasks == 1:
        return None
    numbers = torch.arange(tasks, device=parts[0].y.device).unsqueeze(1)
    ids = [numbers.expand(tasks, part.size)[part.real] for part in parts]
    return Groups(torch.cat(ids), tasks)
