"""The outer loop: steps, validations, checkpoints, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kshot import philox
from kshot.engine.processes import Processes
from kshot.episodes import FrozenEpisodes
from kshot.errors import DivergedError, WorkerError
from kshot.interrupt import GaveUpWaitingError, Stop
from kshot.learners.base import MetaLearner
from kshot.training.hard_tasks import HardTasks
from kshot.training.keeper import Keeper
from kshot.training.outer_step import outer_step
from kshot.training.state import History, Row, TrainingState
from kshot.training.validation import validate
from kshot.types import Episode

SMOOTHING = 0.95
"""Of the loss that is shown: the weight of its past."""

LOG_POINTS = 100
"""Lines of metrics that a whole run writes, validations apart."""


@dataclass
class OuterLoop:
    """A meta-training under way; the fields are `meta_train`'s arguments and what they became."""

    learner: MetaLearner
    state: TrainingState
    keeper: Keeper
    parameters: list[nn.Parameter]
    draw: Callable[[Sequence[int]], Episode]
    hard: HardTasks | None
    steps: int
    meta_batch: int
    clip: float | None
    seed: int
    validation: FrozenEpisodes | None
    validate_every: int
    patience: int | None
    processes: Processes
    stop: Stop
    on_row: Callable[[Row, bool], None]
    tell: Callable[[History, float], None]

    def __post_init__(self) -> None:
        self.history, self.best = self.state.history, self.state.best
        self.started = time.perf_counter() - self.history.seconds

    def run(self) -> None:
        """Train to the end, or until a signal; leave the learner with its best weights."""
        try:
            self._loop()
            self._check_validations()
        except (KeyboardInterrupt, WorkerError) as error:
            # A signal to the whole group may end another process before this one's step.
            if isinstance(error, WorkerError) and not self.stop.asked:
                raise
            self.history.stopped = "interrupted"
            self._keep_unjudged()
        except DivergedError:
            self._keep_unjudged()
            raise
        finally:
            self.best.restore(self.learner)
            self.learner.eval()
            self.history.seconds = time.perf_counter() - self.started

    def _loop(self) -> None:
        history, asked = self.history, False
        settled = history.rows[-1].step if history.rows else 0
        if settled < history.steps and self._is_due:  # it was cut off in a validation
            self._close(asked)
        while history.steps < self.steps and not asked:
            if self._out_of_patience:
                history.stopped = f"no better validation in {self.patience} checks"
                break
            asked = self._step()
            self._close(asked)
            self.tell(history, self.state.smooth)
        if asked or self.stop.asked:
            raise KeyboardInterrupt

    def _step(self) -> bool:
        """One outer step; whether any process was asked to stop."""
        state, step = self.state, self.history.steps
        first = step * self.meta_batch
        index = self.processes.share(range(first, first + self.meta_batch))
        episode = self.draw(index).to(self.parameters[0].device)
        state.rate = float(state.scheduler.get_last_lr()[0])
        self._seed_torch("train")
        try:
            loss, asked = outer_step(
                self.learner,
                episode,
                state.optimizer,
                self.parameters,
                clip=self.clip,
                step=step,
                weight=len(index) / self.meta_batch,
                processes=self.processes,
                stop=self.stop,
                hard=self.hard,
            )
        except (WorkerError, GaveUpWaitingError):  # all is as it was before the step
            self.keeper.save(now=True)
            raise
        state.scheduler.step()
        if self.hard is not None:
            self.hard.settle()
            state.pool = self.hard.pool
        weight = SMOOTHING if step else 0.0
        state.smooth = weight * state.smooth + (1 - weight) * loss
        self.history.steps, self.history.seconds = step + 1, time.perf_counter() - self.started
        return asked

    def _close(self, asked: bool) -> None:
        """Log the last step, validate and write the checkpoint, where they are due."""
        if self._is_due:
            self.keeper.save(now=True)  # a validation takes long, and may be cut off
        if self._is_due or self.history.steps % max(1, self.steps // LOG_POINTS) == 0:
            self._log(due=self._is_due)
        self.keeper.save(now=self._is_due or asked)

    def _log(self, *, due: bool) -> None:
        """Log a row; where it is due, validate, and offer the weights to be kept as the best."""
        row = self._row()
        if due and self.validation is not None:
            self._seed_torch("validation")
            self.history.metric, row.validation, row.interval = validate(
                self.learner, self.validation, self.processes, self.stop.while_waiting
            )
        self._add(row, offered=due)

    def _keep_unjudged(self) -> None:
        """Where nothing has been validated, keep the weights of the last step; they are finite."""
        judged = self.validation is not None and self.best.step > 0
        if self.best.step < self.history.steps and not judged:
            self._add(self._row(), offered=True)

    def _row(self) -> Row:
        seconds = time.perf_counter() - self.started
        return Row(self.history.steps, self.state.smooth, self.state.rate, seconds)

    def _add(self, row: Row, *, offered: bool) -> None:
        improved = offered and self.best.offer(self.learner, row, self.history.metric)
        self.history.best_step = self.best.step
        self.history.rows.append(row)
        self.on_row(row, improved)

    @property
    def _is_due(self) -> bool:
        """Whether the last step is followed by a validation."""
        return self.history.steps % self.validate_every == 0 or self.history.steps == self.steps

    @property
    def _out_of_patience(self) -> bool:
        if self.patience is None or self.history.steps % self.validate_every:
            return False
        return self.history.steps - self.history.best_step >= self.patience * self.validate_every

    def _check_validations(self) -> None:
        if self.validation is not None and self.best.step == 0:
            raise DivergedError(
                f"every validation gave a NaN or infinite {self.history.metric}, so that no "
                "weights can be chosen; those of the last step are kept. Lower lr or inner_lr, or "
                "set clip (for example clip=10)."
            )

    def _seed_torch(self, purpose: str) -> None:
        """Dropout and the like depend on the step alone, so that a resumed run goes on exactly."""
        where = (purpose, self.seed, self.history.steps, self.processes.rank)
        seed = philox.key_of(*where) % 2**64
        if self.parameters[0].device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)  # all devices' generators; on a CPU it would take 1 ms
