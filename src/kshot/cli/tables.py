"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from kshot.evaluation import Result


def result_table(results: Sequence[Result]) -> Table:
    """One row for each task and method; the interval is 95 % over episodes."""
    metric = "accuracy" if results[0].metric == "accuracy" else "squared error"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("tasks", "method"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"{metric} ± 95 %", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    before = ""
    for result in results:
        group = f"{result.source}, {result.task}"
        notes = ["transductive" if result.transductive else "inductive"]
        notes += [f"{k} {v:.3f}" for k, v in result.extra.items()]
        if before and group != before:
            table.add_row()
        shown = "" if group == before else group
        style = "bold" if group != before else ""
        table.add_row(
            shown, result.name, f"[{style}]{result}[/]" if style else str(result), ", ".join(notes)
        )
        before = group
    return table
