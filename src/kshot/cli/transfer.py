"""`kshot transfer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kshot.cli.evaluate import check_picture, check_writable, progress_bar
from kshot.datasets import Split, load
from kshot.errors import ConfigError
from kshot.evaluation.heat_map import transfer_map
from kshot.evaluation.record import without_nan
from kshot.evaluation.report import save_figure
from kshot.files import write_json
from kshot.training import load_run
from kshot.training.config import read_settings
from kshot.training.lineage import lineage
from kshot.training.transfer import RIVALS, Cell, Judge, Target

SHARED = ("refuse", "drop", "keep")


def transfer(
    folders: Sequence[Path],
    targets: Sequence[str],
    settings: Sequence[str],
    judge: Judge,
    shared: str,
    out: Path,
    json_out: Path | None,
) -> None:
    """Score every run on every target beside its rivals, and show the matrix."""
    console = Console(highlight=False)
    check_picture(out)
    check_writable(json_out)
    if shared not in SHARED:
        raise ConfigError(f"--shared {shared}: choose {', '.join(SHARED)}.")
    if not targets:
        raise ConfigError("--targets is empty: name data sets, such as --targets digits,omniglot.")
    runs = [load_run(folder) for folder in folders]
    options = read_settings(settings)
    for name, value in options.items():
        if name not in targets or not isinstance(value, dict):
            raise ConfigError(
                f"--set {name}: say whose option it is, such as {targets[0]}.size=28; the targets "
                f"are {', '.join(targets)}."
            )
    domains = [_target(name, options.get(name, {})) for name in targets]
    pairs = []
    for run in runs:
        behind = lineage(run.config)
        pairs += [(run, domain.without(behind.sources, shared)) for domain in domains]
        for doubt in behind.doubts(", ".join(targets)):
            console.print(f"{run.folder}: {doubt}.", style="yellow", markup=False)
    for _, domain in pairs:
        judge.spec.check(domain.test)
    with progress_bar() as bar:
        cells = [
            judge.transfer(run, domain) for run, domain in bar.track(pairs, description="transfer")
        ]
    console.print(f"{judge.spec.describe()}, {judge.episodes:,} episodes; gains are paired, ± 95 %")
    console.print(_table(cells))
    for cell in cells:
        if cell.apart is not None:
            console.print(
                f"{cell.run} on {cell.target}: source and target share {', '.join(cell.shared)}; "
                f"without: {cell.apart}.",
                style="yellow",
                markup=False,
            )
    if json_out is not None:
        write_json(json_out, [_record(cell) for cell in cells])
        console.print(f"Record: {json_out}")
    save_figure(transfer_map([(c.run, c.target, c.result, c.gains) for c in cells]), out)
    console.print(f"Picture: {out}")


def _target(name: str, options: Mapping[str, Any]) -> Target:
    """The data set of that name, with these options."""
    data = load(name, **options)
    test, val = data["test"], data.splits.get("val")
    if not isinstance(test, Split):
        raise ConfigError(f"{name} has no classes to transfer to: choose a data set of classes.")
    return Target(name, test, val if isinstance(val, Split) else None)


def _table(cells: Sequence[Cell]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("source run", overflow="fold")
    for column in ("target", "accuracy", *(f"over\n{rival}" for rival in RIVALS)):
        table.add_column(column, no_wrap=True)
    for cell in cells:
        gains = [str(cell.gains[rival]) for rival in RIVALS]
        table.add_row(cell.run, cell.target, str(cell.result), *gains)
    return table


def _record(cell: Cell) -> dict[str, Any]:
    return {
        "run": cell.run,
        "target": cell.target,
        "result": cell.result.as_dict(),
        "rivals": {name: rival.as_dict() for name, rival in cell.rivals.items()},
        "gains": {name: gain.as_dict() for name, gain in cell.gains.items()},
        "tuned": {
            name: [without_nan(asdict(t)) for t in tried] for name, tried in cell.tuned.items()
        },
        "shared": list(cell.shared),
        "apart": None if cell.apart is None else cell.apart.as_dict(),
    }
