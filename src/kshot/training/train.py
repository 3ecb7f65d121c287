"""The outer loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import nn

from kshot.datasets.base import Dataset, Split, TaskFamily
from kshot.engine import explain_second_order
from kshot.episodes import EpisodeSpec, FrozenEpisodes, augment, draw
from kshot.episodes.augment import Augmentation
from kshot.episodes.spec import bounds
from kshot.errors import ConfigError, DivergedError
from kshot.evaluation import mean_interval, score_episodes, show
from kshot.learners.base import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.training.optim import Optimizer, make_optimizer, make_schedule
from kshot.types import Episode

SMOOTHING = 0.95
"""Of the loss that is shown: the weight of its past."""

LOG_POINTS = 100
"""Lines of metrics that a whole run writes, validations apart."""


@dataclass
class Row:
    """One line of the metrics; `validation` and `interval` where one was due."""

    step: int
    loss: float
    lr: float
    seconds: float
    validation: float | None = None
    interval: float | None = None


@dataclass
class History:
    """How a meta-training went.

    Attributes:
        rows: about a hundred, and one for each validation.
        metric: what the validation measures, `accuracy` or `mse`.
        best_step: the step whose weights were kept.
        steps: outer steps run.
        seconds: of wall time, validation included.
        stopped: why it ended early, or None.
    """

    rows: list[Row] = field(default_factory=list)
    metric: str = "accuracy"
    best_step: int = 0
    steps: int = 0
    seconds: float = 0.0
    stopped: str | None = None


def meta_train(
    learner: MetaLearner,
    data: Dataset | Split | TaskFamily,
    *,
    way: int | tuple[int, int] = 5,
    shot: int | tuple[int, int] = 1,
    query: int = 15,
    steps: int = 1000,
    meta_batch: int = 1,
    lr: float = 1e-3,
    optimizer: Optimizer = "adam",
    schedule: str = "constant",
    clip: float | None = None,
    validation: FrozenEpisodes | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    augmentations: Sequence[Augmentation] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
    on_row: Callable[[Row, bool], None] | None = None,
    progress: bool = True,
) -> History:
    """Meta-train a learner, in place, and leave it with its best weights.

    Best is judged by the validation episodes alone: a data set's split `val`, or `validation`.
    Without either the last weights are kept. Ctrl-C ends the run cleanly, with what it has.

    Args:
        learner: what is trained.
        data: a data set (its splits `train` and `val` are used), or a source of episodes.
        way: classes per task in meta-training.
        shot: support examples per class.
        query: queries per class.
        steps: outer steps.
        meta_batch: tasks per outer step.
        lr: the outer learning rate.
        optimizer: `adam`, `sgd`, or anything that makes a torch optimizer of the parameters.
        schedule: `constant`, `linear`, `cosine` or `halve:N`.
        clip: greatest norm of the meta-gradient.
        validation: frozen episodes; by default 200 of the split `val`, shaped as in training.
        validate_every: outer steps between validations.
        patience: validations without a new best after which the run ends.
        augmentations: applied to the training images, keyed by episode.
        seed: of the training episodes.
        device: where to train; the learner's own device by default.
        on_row: called with each new row, and whether its weights are the best so far.
        progress: show a bar with rate, time left, loss and validation score.

    Raises:
        EpisodeError: if the data cannot give such episodes.
        ConfigError: for impossible settings.
        DivergedError: if the loss or the gradient becomes NaN; the last good weights are kept.
        DifferentiationError: if a layer cannot be differentiated as the learner needs.
    """
    if min(steps, meta_batch, validate_every) < 1:
        raise ConfigError(
            f"steps={steps}, meta_batch={meta_batch} and validate_every={validate_every} "
            "must be at least 1."
        )
    if clip is not None and not 0 < clip < float("inf"):
        raise ConfigError(f"clip={clip} must be greater than 0 and finite; None does not clip.")
    if patience is not None and patience < 1:
        raise ConfigError(f"patience={patience} must be at least 1; None never stops early.")
    if query < 1 and learner.needs_query:
        raise ConfigError(f"query={query}: {type(learner).__name__} needs at least 1 per class.")
    spec = EpisodeSpec(way, shot, query)
    source = data["train"] if isinstance(data, Dataset) else data
    spec.check(source)
    if validation is None and isinstance(data, Dataset) and "val" in data.splits:
        validation = default_validation(data["val"], spec)
    if device is not None:
        learner.to(device)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError(f"{type(learner).__name__} has nothing to train: give it an encoder.")
    outer = make_optimizer(optimizer, parameters, lr)
    scheduler = make_schedule(outer, schedule, steps)
    where = parameters[0].device
    history, best = History(), _Best(learner)
    started = time.perf_counter()
    smooth: float = 0.0
    log_every = max(1, steps // LOG_POINTS)

    def settle(step: int, loss: float, rate: float, *, due: bool, judged: bool = True) -> None:
        """Log a row; where it is due, validate (if `judged`) and keep the best weights."""
        row = Row(step, loss, rate, time.perf_counter() - started)
        if due and judged and validation is not None:
            history.metric, row.validation, row.interval = _validate(learner, validation)
        improved = due and best.offer(learner, row, history.metric)
        history.best_step = best.step
        history.rows.append(row)
        if on_row is not None:
            on_row(row, improved)

    def keep_unjudged() -> None:
        """Where nothing has been validated, keep the weights of the last step; they are finite."""
        if history.steps and (best.step == 0 or validation is None):
            settle(history.steps, smooth, 0.0, due=True, judged=False)

    with _bar(steps, progress) as tell:
        try:
            learner.train()
            for step in range(steps):
                first = step * meta_batch
                drawn = draw(source, spec, seed, range(first, first + meta_batch))
                episode = augment(drawn, augmentations, seed)
                rate = float(scheduler.get_last_lr()[0])
                loss = _outer_step(learner, episode.to(where), outer, parameters, clip, step)
                scheduler.step()
                weight = SMOOTHING if step else 0.0
                smooth = weight * smooth + (1 - weight) * loss
                history.steps, history.seconds = step + 1, time.perf_counter() - started
                due = (step + 1) % validate_every == 0 or step + 1 == steps
                if due or (step + 1) % log_every == 0:
                    settle(step + 1, smooth, rate, due=due)
                tell(history, smooth)
                if (
                    due
                    and patience is not None
                    and history.steps - best.step >= (patience * validate_every)
                ):
                    history.stopped = f"no better validation in {patience} checks"
                    break
        except KeyboardInterrupt:
            history.stopped = "interrupted"
            keep_unjudged()
        except DivergedError:
            keep_unjudged()
            raise
        finally:
            best.restore(learner)
            learner.eval()
            history.seconds = time.perf_counter() - started
    return history


def default_validation(val: Split | TaskFamily, spec: EpisodeSpec) -> FrozenEpisodes:
    """200 episodes shaped as in training, as far as the split allows."""
    if not isinstance(val, Split):
        return FrozenEpisodes(val, spec, 200)
    way = min(bounds(spec.way)[1], len(val.sizes))
    shot = bounds(spec.shot)[0]
    query = max(1, min(15, min(val.sizes) - shot))
    return FrozenEpisodes(val, EpisodeSpec(way, shot, query), 200)


def _outer_step(
    learner: MetaLearner,
    episode: Episode,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    clip: float | None,
    step: int,
) -> float:
    """One update of the slow weights; returns the loss."""
    optimizer.zero_grad(set_to_none=True)
    # The forward moves running statistics; a loss that is not finite must not leave its own.
    buffers = {name: buffer.clone() for name, buffer in learner.named_buffers()}
    try:
        loss = learner.loss(episode)
        loss.backward()
    except RuntimeError as error:
        head = learner.head
        if isinstance(head, InnerLoop) and head.gradient == "unrolled":
            explained = explain_second_order(head.net, episode.support.flat(), error)
            if explained is not None:
                raise explained from error
        raise
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        for name, buffer in learner.named_buffers():
            buffer.copy_(buffers[name])
        what = "loss" if not torch.isfinite(loss) else "gradient of the loss"
        raise DivergedError(
            f"the {what} became NaN or infinite at step {step + 1}; the last good weights are "
            "kept. Lower lr or inner_lr, or set clip (for example clip=10)."
        )
    optimizer.step()
    return float(loss.detach())


class _Best:
    """The best weights so far; the first ones until there are any."""

    def __init__(self, learner: MetaLearner) -> None:
        self.step, self.score = 0, float("-inf")
        self._keep(learner)

    def _keep(self, learner: MetaLearner) -> None:
        self.weights = {k: v.detach().clone() for k, v in learner.state_dict().items()}

    def offer(self, learner: MetaLearner, row: Row, metric: str) -> bool:
        """Keep these weights if they validate better, or if there is nothing to judge by."""
        score = float(row.step) if row.validation is None else row.validation
        if row.validation is not None and metric != "accuracy":
            score = -score
        if not score > self.score:  # NaN is never better
            return False
        self.step, self.score = row.step, score
        self._keep(learner)
        return True

    def restore(self, learner: MetaLearner) -> None:
        learner.load_state_dict(self.weights)


def _validate(learner: MetaLearner, validation: FrozenEpisodes) -> tuple[str, float, float]:
    scores = score_episodes(learner, validation)
    metric = next(iter(scores))
    return metric, *mean_interval(scores[metric])


@contextmanager
def _bar(steps: int, shown: bool) -> Iterator[Callable[[History, float], None]]:
    columns = (
        TextColumn("meta-training"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} steps/s"),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}{task.fields[validation]}"),
    )
    with Progress(*columns, disable=not shown, refresh_per_second=4) as bar:
        task = bar.add_task("", total=steps, rate=0.0, loss=float("nan"), validation="")

        def tell(history: History, loss: float) -> None:
            rate = history.steps / max(history.seconds, 1e-9)
            scores = [r.validation for r in history.rows if r.validation is not None]
            judged = f"  validation {show(history.metric, scores[-1])}" if scores else ""
            bar.update(task, completed=history.steps, rate=rate, loss=loss, validation=judged)

        yield tell
