"""`kshot train`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from kshot.cli.tables import result_table
from kshot.engine.processes import (
    Processes,
    from_environment,
    join_processes,
    local_workers,
    own_rank,
)
from kshot.errors import ConfigError
from kshot.training.build import pick_device
from kshot.training.config import RunConfig, read_recipe
from kshot.training.job import run
from kshot.training.run import read_config
from kshot.training.seeds import read_plan, run_seeds

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


DEFAULT_RECIPE = "protonet-glyphs"


def train(
    recipe: str | None,
    settings: Sequence[str],
    device: str,
    seed: int | None,
    out: Path | None,
    resume: Path | None,
    workers: int,
    seeds: int,
    quiet: bool,
) -> None:
    """Read the recipe or the stopped run, run it, show the table and what to do next."""
    rank = own_rank()
    console = Console(highlight=False, quiet=rank > 0)
    if resume is not None:
        if recipe or settings or out or seed is not None or seeds > 1:
            raise ConfigError(
                "--resume goes on with a run as it was begun: leave recipe, --set, --seed, --seeds "
                "and --out away."
            )
        config, seeds = read_plan(resume) or (read_config(resume), 1)
        folder, what = resume, "--resume"
    else:
        what = recipe or DEFAULT_RECIPE
        config = read_recipe(what, [*settings, *([f"seed={seed}"] if seed is not None else [])])
        folder = out or _next_folder(config.name)
    where = pick_device(device)

    def processes(run_folder: Path) -> AbstractContextManager[Processes]:
        if from_environment():
            return join_processes()
        command = ["train", "--resume", str(run_folder), "--device", device]
        return local_workers(workers, [sys.executable, "-m", "kshot", *command])

    def ready() -> None:
        console.print(f"[bold]kshot train[/bold] {what} on {where} -> {folder}")
        if not quiet:
            console.print(_settings(config), style="dim")

    job = run if seeds == 1 else partial(run_seeds, count=seeds)
    outcome = job(
        config,
        folder,
        device=where,
        resume=resume is not None,
        processes=processes,
        rank=rank,
        progress=not quiet,
        ready=ready,
        tell=console.print,
    )
    if outcome.history.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if not outcome.results:
        return
    console.print(result_table(outcome.results))
    _next_steps(console, folder, config, outcome.results[0].metric)


def _next_steps(console: Console, folder: Path, config: RunConfig, metric: str) -> None:
    console.print(f"\nReport: {folder / 'report.html'}\nNext:")
    if metric == "accuracy":
        console.print(f"  kshot evaluate {folder} --episodes 5000   [dim]# surer numbers[/dim]")
        console.print("  kshot episodes                          [dim]# see the tasks[/dim]")
    other = "protonet-glyphs" if config.learner.name == "maml" else "maml-glyphs"
    console.print(f"  kshot train {other:<27} [dim]# another method[/dim]")
    console.print("  kshot recipes                           [dim]# all that come with kshot[/dim]")


def _settings(config: RunConfig) -> str:
    """The resolved configuration, a line for each section."""
    lines = []
    for section, value in config.model_dump(mode="json").items():
        for row in value if isinstance(value, list) else [value]:
            body = (
                " ".join(f"{k}={json.dumps(v)}" for k, v in row.items() if v is not None)
                if isinstance(row, dict)
                else str(row)
            )
            lines.append(f"  {section:<11}{body}")
    return "\n".join(lines)


def _next_folder(name: str) -> Path:
    numbers = (i for i in range(1, 10**6) if not Path("runs", f"{name}-{i:03d}").exists())
    return Path("runs", f"{name}-{next(numbers):03d}")
