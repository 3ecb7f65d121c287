"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from kshot.evaluation import Difference, Result


def result_table(results: Sequence[Result]) -> Table:
    """The methods below each task; the interval is 95 % over episodes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("unseen tasks", no_wrap=True)
    table.add_column(f"{_heading(results)} ± 95 %", no_wrap=True)
    table.add_column("", style="dim")
    before = ""
    for result in results:
        group = f"{result.source}, {result.task}"
        notes = [_kind(result), *(f"{k} {v:.3f}" for k, v in result.extra.items())]
        style = ""
        if group != before:
            if before:
                table.add_row()
            table.add_row(group)
            style = "bold"
        table.add_row(f"  {result.name}", Text(str(result), style), ", ".join(notes))
        before = group
    return table


def comparison_table(results: Sequence[Result], differences: Sequence[Difference]) -> Table:
    """One row for each method, the first being the reference of the differences."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("method", f"{_heading(results)} ± 95 %", "difference ± 95 %", ""):
        table.add_column(heading, no_wrap=True)
    table.add_row(results[0].name, str(results[0]))
    for result, difference in zip(results[1:], differences, strict=True):
        table.add_row(result.name, str(result), str(difference), difference.verdict)
    return table


def footer(results: Sequence[Result]) -> str:
    """What the rows of a table share, and what is behind each that was trained."""
    facts = [_facts(result) for result in results]
    lines = [", ".join(fact for fact in facts[0] if all(fact in other for other in facts))]
    for r in results:
        if r.meta_steps:
            plural = "s" if len(r.training_seeds) > 1 else ""
            lines.append(
                f"{r.name}: {_kind(r)}, normalisation {r.normalization}, {r.meta_steps:,} "
                f"meta-steps, training seed{plural} {', '.join(map(str, r.training_seeds))}"
            )
    first = results[0]
    commit = f", commit {first.commit}" if first.commit else ""
    return "\n".join([*lines, f"kshot {first.versions['kshot']}{commit}"])


def _heading(results: Sequence[Result]) -> str:
    return "accuracy" if results[0].metric == "accuracy" else "squared error"


def _kind(result: Result) -> str:
    return "transductive" if result.transductive else "inductive"


def _facts(result: Result) -> list[str]:
    return [
        f"{result.episodes:,} episodes",
        ("1 query" if result.spec["query"] == 1 else f"{result.spec['query']} queries")
        + (" per class" if result.metric == "accuracy" else ""),
        f"seed {result.seed}",
        f"hash {result.episode_hash}",
    ]
