"""The same training from several seeds, and how far the results spread over them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kshot.errors import CheckpointError
from kshot.evaluation import Result, over_seeds, plots
from kshot.evaluation.report import Picture, write_report
from kshot.files import write_json
from kshot.training.config import RunConfig, validate
from kshot.training.job import Outcome, run
from kshot.training.run import RESULTS, read_results, remove_empty
from kshot.training.state import History

PLAN = "seeds.json"
"""In the folder of the runs: their configuration and how many there are to be."""


def run_seeds(
    config: RunConfig,
    folder: Path,
    count: int,
    *,
    resume: bool = False,
    ready: Callable[[], None] = lambda: None,
    rank: int = 0,
    **options: Any,
) -> Outcome:
    """Run from `count` seeds, each in a folder of its own, and put the results together.

    Args:
        config: its seed is the first one.
        folder: for the runs `seed-0`, `seed-1` and so on.
        count: of the seeds.
        resume: go on with the folder.
        ready: called when everything has been checked and the first training begins.
        rank: of this process; only the first writes.
        options: of `run`.

    Returns:
        The last run's history, with the results over all seeds (none if it was interrupted).

    Raises:
        KshotError: as `run`.
    """
    plan = {"config": config.model_dump(mode="json"), "count": count}
    if rank == 0 and not resume and folder.exists():
        raise CheckpointError(f"{folder} already exists: choose another --out or remove it.")
    if resume and (folder / RESULTS).exists():
        raise CheckpointError(f"{folder} has finished: see {folder / 'report.html'}.")

    made = [p for p in (folder, *folder.parents) if not p.exists()]

    def begin() -> None:
        if rank == 0:
            write_json(folder / PLAN, plan)
        if history.steps == 0:
            ready()

    found: list[list[Result]] = []
    history = History()
    try:
        for seed in range(config.seed, config.seed + count):
            part = folder / f"seed-{seed}"
            results = read_results(part)
            if results is None:
                outcome = run(
                    config.model_copy(update={"seed": seed}),
                    part,
                    resume=(part / "run.json").exists(),
                    ready=begin,
                    rank=rank,
                    **options,
                )
                history, results = outcome.history, outcome.results
                if history.stopped == "interrupted":
                    return outcome
            found.append(results)
    finally:
        if rank == 0 and folder in made and not any(folder.glob("seed-*")):
            (folder / PLAN).unlink(missing_ok=True)
            remove_empty(made)
    if rank > 0:
        return Outcome(folder, history, [])
    joined = [over_seeds(group) for group in zip(*found, strict=True)]
    if joined:
        _report(folder, config, joined, count)
        write_json(folder / RESULTS, [r.as_dict() for r in joined])
    return Outcome(folder, history, joined)


def read_plan(folder: Path) -> tuple[RunConfig, int] | None:
    """Configuration and number of seeds of a folder of runs; None if it is another folder."""
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return validate(plan["config"]), int(plan["count"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: train again.") from error


def _report(folder: Path, config: RunConfig, results: list[Result], count: int) -> None:
    picture = Picture(
        "At a glance",
        "Means over the seeds, with 95 % intervals over episodes; the table gives the spread over "
        "seeds too. Each run's own report is in its folder.",
        plots.result_bars(results),
    )
    write_report(
        folder / "report.html",
        f"{config.name}, {count} seeds",
        f"{results[0].name} meta-trained from the seeds {config.seed} to {config.seed + count - 1}",
        results,
        [picture],
        config.model_dump(mode="json"),
    )
