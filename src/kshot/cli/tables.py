"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from kshot.evaluation import Difference, Result


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


def comparison_table(results: Sequence[Result], differences: Sequence[Difference]) -> Table:
    """One row for each method, the first being the reference of the differences."""
    metric = "accuracy" if results[0].metric == "accuracy" else "squared error"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    for heading in (metric, "difference"):
        table.add_column(f"{heading} ± 95 %", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_row(results[0].name, f"{results[0]}", "", "")
    for result, difference in zip(results[1:], differences, strict=True):
        table.add_row(result.name, f"{result}", f"{difference}", difference.verdict)
    return table


def footer(results: Sequence[Result]) -> str:
    """What the rows of a table share, and what is behind each that was trained."""
    facts = [_facts(result) for result in results]
    lines = [", ".join(fact for fact in facts[0] if all(fact in other for other in facts))]
    for r in results:
        if r.meta_steps:
            kind = "transductive" if r.transductive else "inductive"
            seeds = ", ".join(map(str, r.training_seeds))
            lines.append(
                f"{r.name}: {kind}, normalisation {r.normalization}, {r.meta_steps:,} meta-steps, "
                f"training seed{'s' if len(r.training_seeds) > 1 else ''} {seeds}"
            )
    first = results[0]
    commit = f", commit {first.commit}" if first.commit else ""
    return "\n".join([*lines, f"kshot {first.versions['kshot']}{commit}"])


def _facts(result: Result) -> list[str]:
    return [
        f"{result.episodes:,} episodes",
        f"{result.spec['query']} queries" + (" per class" if result.metric == "accuracy" else ""),
        f"seed {result.seed}",
        f"hash {result.episode_hash}",
    ]
