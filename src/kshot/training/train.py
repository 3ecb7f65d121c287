"""The outer loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kshot.datasets.base import Dataset
from kshot.datasets.sources import Mixture, Source, Split
from kshot.engine.processes import ALONE, Processes
from kshot.episodes import EpisodeSpec, FrozenEpisodes, augment, draw
from kshot.episodes.augment import Augmentation
from kshot.episodes.spec import Range, Shot, bounds
from kshot.errors import ConfigError, DivergedError, WorkerError
from kshot.evaluation import mean_interval, score_episodes, show
from kshot.learners.base import MetaLearner
from kshot.training.interrupt import stop_on_signals
from kshot.training.optim import Optimizer, make_optimizer, make_schedule
from kshot.training.outer_step import outer_step
from kshot.training.state import Best, History, Row, TrainingState

SMOOTHING = 0.95
"""Of the loss that is shown: the weight of its past."""

LOG_POINTS = 100
"""Lines of metrics that a whole run writes, validations apart."""

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints, validations apart, which each are followed by one."""


def meta_train(
    learner: MetaLearner,
    data: Dataset | Source,
    *,
    way: Range = 5,
    shot: Shot = 1,
    query: int = 15,
    imbalanced: bool = False,
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
    checkpoint: Path | str | None = None,
    processes: Processes = ALONE,
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
        shot: support examples per class, a range of them, or `"any"` (Meta-Dataset's rule).
        query: queries per class.
        imbalanced: draw the shot, where it is a range, for each class.
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
        checkpoint: a file that keeps the whole state of the training. Where it exists, the
            training goes on from it and ends with the same weights, bit for bit, as if it had
            never been stopped (on the same machine, with the same settings).
        processes: who shares each meta-batch (see `kshot.engine.processes`).
        on_row: called with each new row, and whether its weights are the best so far.
        progress: show a bar with rate, time left, loss and validation score.

    Raises:
        EpisodeError: if the data cannot give such episodes.
        ConfigError: for impossible settings.
        CheckpointError: if the checkpoint belongs to another training or cannot be written.
        DivergedError: if the loss or the gradient becomes NaN; the last good weights are kept.
        DifferentiationError: if a layer cannot be differentiated as the learner needs.
        WorkerError: if one of the processes ends; the checkpoint has the last whole step.
    """
    _check_numbers(steps, meta_batch, validate_every, clip, patience)
    if min(meta_batch, validation.count if validation else meta_batch) < processes.size:
        raise ConfigError(
            f"a meta-batch of {meta_batch} tasks (or the validation episodes) cannot be shared "
            f"among {processes.size} processes: raise train.meta_batch, or lower --workers."
        )
    if query < 1 and learner.needs_query:
        raise ConfigError(f"query={query}: {type(learner).__name__} needs at least 1 per class.")
    spec = EpisodeSpec(way, shot, query, imbalanced)
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
    state = TrainingState(learner, outer, scheduler, Best(learner), History())
    keeper = _Keeper(
        None if checkpoint is None else Path(checkpoint),
        state,
        {
            "learner": type(learner).__name__,
            "episodes": source.fingerprint,
            "spec": spec.as_dict(),
            "steps": steps,
            "meta_batch": meta_batch,
            "lr": lr,
            "optimizer": type(outer).__name__,
            "schedule": schedule,
            "clip": clip,
            "validation": None if validation is None else validation.hash,
            "validate_every": validate_every,
            "patience": patience,
            "augmentations": len(augmentations),
            "seed": seed,
        },
        writes=processes.rank == 0,
    )
    keeper.load()
    history, best = state.history, state.best
    where = parameters[0].device
    started = time.perf_counter() - history.seconds
    log_every = max(1, steps // LOG_POINTS)

    def is_due(step: int) -> bool:
        return step % validate_every == 0 or step == steps

    def settle(*, due: bool, judged: bool = True) -> None:
        """Log a row; where it is due, validate (if `judged`) and keep the best weights."""
        row = Row(history.steps, state.smooth, state.rate, time.perf_counter() - started)
        if due and judged and validation is not None:
            history.metric, row.validation, row.interval = _validate(learner, validation, processes)
        improved = due and best.offer(learner, row, history.metric)
        history.best_step = best.step
        history.rows.append(row)
        if on_row is not None:
            on_row(row, improved)

    def keep_unjudged() -> None:
        """Where nothing has been validated, keep the weights of the last step; they are finite."""
        if history.steps and (best.step == 0 or validation is None):
            settle(due=True, judged=False)

    with _bar(steps, history.steps, progress) as tell, stop_on_signals() as stop:
        try:
            learner.train()
            settled = history.rows[-1].step if history.rows else 0
            if settled < history.steps and is_due(history.steps):  # it was cut off in a validation
                settle(due=True)
            for step in range(history.steps, steps):
                if _out_of_patience(history, patience, validate_every):
                    history.stopped = f"no better validation in {patience} checks"
                    break
                first = step * meta_batch
                index = processes.share(range(first, first + meta_batch))
                episode = augment(draw(source, spec, seed, index), augmentations, seed)
                state.rate = float(scheduler.get_last_lr()[0])
                try:
                    loss, asked = outer_step(
                        learner,
                        episode.to(where),
                        outer,
                        parameters,
                        clip=clip,
                        step=step,
                        weight=len(index) / meta_batch,
                        processes=processes,
                        stop=stop.asked,
                    )
                except WorkerError:  # this process is whole, and as it was before the step
                    keeper.save(now=True)
                    raise
                scheduler.step()
                weight = SMOOTHING if step else 0.0
                state.smooth = weight * state.smooth + (1 - weight) * loss
                history.steps, history.seconds = step + 1, time.perf_counter() - started
                due = is_due(step + 1)
                if due:
                    keeper.save(now=True)  # a validation takes long, and may be cut off
                if due or (step + 1) % log_every == 0:
                    settle(due=due)
                keeper.save(now=due or asked)
                tell(history, state.smooth)
                if asked and step + 1 < steps:
                    raise KeyboardInterrupt
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


def _check_numbers(
    steps: int,
    meta_batch: int,
    validate_every: int,
    clip: float | None,
    patience: int | None,
) -> None:
    if min(steps, meta_batch, validate_every) < 1:
        raise ConfigError(
            f"steps={steps}, meta_batch={meta_batch} and validate_every={validate_every} "
            "must be at least 1."
        )
    if clip is not None and not 0 < clip < math.inf:
        raise ConfigError(f"clip={clip} must be greater than 0 and finite; None does not clip.")
    if patience is not None and patience < 1:
        raise ConfigError(f"patience={patience} must be at least 1; None never stops early.")


def _out_of_patience(history: History, patience: int | None, validate_every: int) -> bool:
    if patience is None or history.steps % validate_every:
        return False
    return history.steps - history.best_step >= patience * validate_every


class _Keeper:
    """Writes the checkpoint when it is due, and reads it at the start."""

    def __init__(
        self, path: Path | None, state: TrainingState, settings: dict[str, Any], *, writes: bool
    ) -> None:
        self.path, self.state, self.settings, self.writes = path, state, settings, writes
        self.last = time.monotonic()

    def load(self) -> None:
        if self.path is not None and self.path.exists():
            self.state.load(self.path, self.settings)

    def save(self, *, now: bool) -> None:
        if self.path is None or not self.writes:
            return
        if now or time.monotonic() - self.last > CHECKPOINT_SECONDS:
            self.state.save(self.path, self.settings)
            self.last = time.monotonic()


def default_validation(val: Source, spec: EpisodeSpec) -> FrozenEpisodes:
    """200 episodes shaped as in training, as far as the split allows."""
    if not isinstance(val, (Split, Mixture)) or spec.shot == "any":
        return FrozenEpisodes(val, spec, 200)
    way = min(bounds(spec.way)[1], *(len(part.sizes) for part in val.sources))
    shot = bounds(spec.shot)[0]
    query = max(1, min(15, *(min(part.sizes) - shot for part in val.sources)))
    return FrozenEpisodes(val, EpisodeSpec(way, shot, query), 200)


def _validate(
    learner: MetaLearner, validation: FrozenEpisodes, processes: Processes
) -> tuple[str, float, float]:
    """The mean score and its interval; each process scores a part of the episodes."""
    bounds_of_parts = np.linspace(0, validation.count, processes.size + 1).astype(int)
    start, stop = bounds_of_parts[processes.rank : processes.rank + 2].tolist()
    part = replace(validation, start=validation.start + start, count=stop - start)
    scores = score_episodes(learner, part)
    metric = next(iter(scores))
    return metric, *mean_interval(np.concatenate(processes.gather(scores[metric])))


@contextmanager
def _bar(steps: int, done: int, shown: bool) -> Iterator[Callable[[History, float], None]]:
    columns = (
        TextColumn("meta-training"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} steps/s"),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}{task.fields[validation]}"),
    )
    with Progress(*columns, disable=not shown, refresh_per_second=4) as bar:
        task = bar.add_task(
            "", total=steps, completed=done, rate=0.0, loss=float("nan"), validation=""
        )

        def tell(history: History, loss: float) -> None:
            rate = history.steps / max(history.seconds, 1e-9)
            scores = [r.validation for r in history.rows if r.validation is not None]
            judged = f"  validation {show(history.metric, scores[-1])}" if scores else ""
            bar.update(task, completed=history.steps, rate=rate, loss=loss, validation=judged)

        yield tell
