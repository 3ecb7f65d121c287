"""`kshot compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kshot.cli.evaluate import (
    Request,
    check_writable,
    chosen_data,
    load_runs,
    score,
    warn_of_replays,
    warn_of_seen_classes,
)
from kshot.cli.tables import comparison_table, footer
from kshot.errors import ConfigError
from kshot.evaluation import paired_difference
from kshot.evaluation.plots import comparison
from kshot.evaluation.report import save_figure
from kshot.files import write_json


def compare(folders: Sequence[Path], request: Request, out: Path, json_out: Path | None) -> None:
    """Score all runs and the raw-input baseline on the same frozen episodes."""
    console = Console(highlight=False)
    for path in (out, json_out):
        check_writable(path)
    runs = {name: load_runs(folder) for name, folder in _names(folders).items()}
    first = runs[next(iter(runs))][0]
    source = chosen_data(first, request.dataset, request.settings)[request.split]
    results = score(runs, source, request)
    differences = [paired_difference(result, results[0]) for result in results[1:]]
    console.print(f"{source.name}, {results[0].task}, differences from {results[0].name}")
    console.print(comparison_table(results, differences))
    console.print(footer(results), style="dim")
    every = [run for group in runs.values() for run in group]
    warn_of_replays(console, every, request)
    warn_of_seen_classes(console, every, source, request)
    if json_out is not None:
        record = {
            "results": [r.as_dict() for r in results],
            "differences": [d.as_dict() for d in differences],
        }
        write_json(json_out, record)
        console.print(f"Record: {json_out}")
    save_figure(comparison(results, differences), out)
    console.print(f"Picture: {out}")


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each folder: its own, or its path where several have that."""
    if len(set(folders)) < len(folders):
        raise ConfigError("a run is named twice: give each one once.")
    names = [folder.absolute().name for folder in folders]
    return {
        name if names.count(name) == 1 else str(folder): folder
        for name, folder in zip(names, folders, strict=True)
    }
