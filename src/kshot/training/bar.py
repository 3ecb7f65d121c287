"""The progress bar of a meta-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kshot.evaluation import show
from kshot.training.state import History


@contextmanager
def training_bar(steps: int, done: int, shown: bool) -> Iterator[Callable[[History, float], None]]:
    """A bar with rate, time left, loss and validation score; yields what moves it.

    Args:
        steps: in all.
        done: before this sitting.
        shown: whether there is to be one.
    """
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
