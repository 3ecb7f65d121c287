"""`kshot compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from kshot.cli.evaluate import (
    Request,
    check_picture,
    check_writable,
    chosen_data,
    load_runs,
    score,
    warn_of_replays,
    warn_of_seen_classes,
    warn_of_unfinished,
)
from kshot.cli.tables import comparison_table, footer
from kshot.datasets.catalogue import resolved_options
from kshot.errors import ConfigError
from kshot.evaluation import paired_difference
from kshot.evaluation.plots import comparison
from kshot.evaluation.report import save_figure
from kshot.files import write_json
from kshot.training.config import Part, read_settings
from kshot.training.run import Run


def compare(folders: Sequence[Path], request: Request, out: Path, json_out: Path | None) -> None:
    """Score all runs and the raw-input baseline on the same frozen episodes."""
    console = Console(highlight=False)
    check_picture(out)
    check_writable(json_out)
    runs = {name: load_runs(folder) for name, folder in _names(folders).items()}
    first = runs[next(iter(runs))][0]
    source = chosen_data(first, request.dataset, request.settings)[request.split]
    spec = request.spec(first)
    chosen = request.dataset or first.config.datasets[0].name
    prepared = {name: _prepared(group[0], request, chosen) for name, group in runs.items()}
    results = score(runs, source, spec, request)
    differences = [paired_difference(result, results[0]) for result in results[1:]]
    console.print(f"{results[0].heading}: differences from {results[0].name}", markup=False)
    console.print(comparison_table(results, differences))
    console.print(footer(results), style="dim")
    every = [run for group in runs.values() for run in group]
    if other := [name for name in runs if prepared[name] != prepared[results[0].name]]:
        console.print(
            f"{', '.join(other)}: trained on data with other settings than {results[0].name}; all "
            f"are scored on {results[0].where}.",
            style="yellow",
        )
    warn_of_unfinished(console, every)
    warn_of_replays(console, every, spec, request)
    warn_of_seen_classes(console, every, source)
    if json_out is not None:
        record = {
            "results": [r.as_dict() for r in results],
            "differences": [d.as_dict() for d in differences],
        }
        write_json(json_out, record)
        console.print(f"Record: {json_out}")
    save_figure(comparison(results, differences), out)
    console.print(f"Picture: {out}")


def _prepared(run: Run, request: Request, chosen: str) -> list[tuple[str, dict[str, Any]]]:
    """The data sets that the run was trained on, or would be scored on, with all options.

    The request's settings are those of the data set `chosen`.
    """
    parts = run.config.datasets
    if request.dataset is not None:
        own = [part for part in parts if part.name == request.dataset]
        parts = own or [Part(name=request.dataset)]
    changed = read_settings(request.settings)
    return [
        (p.name, resolved_options(p.name, p.options | (changed if p.name == chosen else {})))
        for p in parts
    ]


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each folder: its own, or its path where several have that."""
    if len(set(folders)) < len(folders):
        raise ConfigError("a run is named twice: give each one once.")
    names = [folder.absolute().name for folder in folders]
    return {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }
