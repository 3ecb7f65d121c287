"""`kshot train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kshot.cli.tables import result_table
from kshot.training.build import pick_device
from kshot.training.config import RunConfig, read_recipe
from kshot.training.job import run


def train(
    recipe: str,
    settings: Sequence[str],
    device: str,
    seed: int | None,
    out: Path | None,
    quiet: bool,
) -> None:
    """Read the recipe, run it, show the table and what to do next."""
    console = Console(highlight=False)
    seeded = [*settings, *([f"seed={seed}"] if seed is not None else [])]
    config = read_recipe(recipe, seeded)
    where = pick_device(device)
    folder = out or _next_folder(config.name)

    def ready() -> None:
        console.print(f"[bold]kshot train[/bold] {recipe} on {where} -> {folder}")
        if not quiet:
            console.print(_settings(config), style="dim")

    outcome = run(config, folder, device=where, progress=not quiet, ready=ready, tell=console.print)
    if not outcome.results:
        return
    console.print(result_table(outcome.results))
    console.print(f"\nReport: {folder / 'report.html'}\nNext:")
    if outcome.results[0].metric == "accuracy":
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
