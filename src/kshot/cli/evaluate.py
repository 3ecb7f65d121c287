"""`kshot evaluate`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from kshot import evaluation
from kshot.cli.tables import result_table
from kshot.datasets import Split, load
from kshot.errors import CheckpointError
from kshot.files import write_json
from kshot.learners import MetaLearner
from kshot.learners.nearest_neighbour import NearestNeighbour
from kshot.training import load_run
from kshot.training.build import pick_device
from kshot.training.job import RAW_BASELINE


def evaluate(
    run: Path,
    dataset: str | None,
    split: str,
    way: int,
    shot: int,
    query: int,
    episodes: int,
    seed: int,
    device: str,
    json_out: Path | None,
) -> None:
    """Score the run and the raw-input baseline on the same frozen episodes."""
    console = Console(highlight=False)
    if json_out is not None and not os.access(json_out.absolute().parent, os.W_OK):
        raise CheckpointError(f"cannot write {json_out}: choose a folder that you may write to.")
    if json_out is not None and json_out.is_dir():
        raise CheckpointError(f"{json_out} is a folder: name a file in it.")
    loaded = load_run(run)
    part = loaded.config.dataset
    options = part.options if dataset in (None, part.name) else {}
    source = load(dataset or part.name, **options)[split]
    learner = loaded.learner.to(pick_device(device))
    name = type(learner).__name__
    methods: list[tuple[str, MetaLearner, int]] = [(name, learner, loaded.meta_steps)]
    if isinstance(source, Split):
        methods.append((RAW_BASELINE, NearestNeighbour(), 0))
    results = []
    with Progress(transient=True) as bar:
        for name, method, steps in methods:
            task = bar.add_task(name, total=episodes)
            results.append(
                evaluation.evaluate(
                    method,
                    source,
                    way=way,
                    shot=shot,
                    query=query,
                    episodes=episodes,
                    seed=seed,
                    name=name,
                    meta_steps=steps,
                    progress=partial(_advance, bar, task),
                )
            )
    console.print(result_table(results))
    if json_out is not None:
        write_json(json_out, [r.as_dict() for r in results])
        console.print(f"Record: {json_out}")


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
