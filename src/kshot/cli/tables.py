"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kshot.evaluation import Difference, Result

NAMES = 30
"""Characters of the column of names, at most; longer names are folded, numbers never."""


def result_table(results: Sequence[Result]) -> Group:
    """The methods below each task; the interval is 95 % over episodes."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.heading, result.episode_hash), []).append(result)
    score = f"{_metric(results)} ± 95 %"
    names = max(10, *(len(result.name) for result in results))
    scores = max(len(score), *(len(str(result)) for result in results))

    def table(first: str, second: str, third: str = "") -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold")
        made.add_column(first, width=min(names + 2, NAMES), overflow="fold")
        made.add_column(second, min_width=scores, no_wrap=True)
        made.add_column(third, style="dim")
        return made

    parts: list[Table | Text] = [table("unseen tasks", score)]
    for (heading, _), members in groups.items():
        rows = table("", "")
        rows.show_header = False
        for result in members:
            notes = [result.protocol, *(f"{k} {v:.3f}" for k, v in result.extra.items())]
            style = "bold" if result is members[0] else ""
            rows.add_row(f"  {result.name}", Text(str(result), style), ", ".join(notes))
        parts += [Text(heading), rows, Text()]
    return Group(*parts[:-1])


def comparison_table(results: Sequence[Result], differences: Sequence[Difference]) -> Table:
    """One row for each method, the first being the reference of the differences."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", overflow="fold")
    for heading in (f"{_metric(results)} ± 95 %", "difference ± 95 %", "", ""):
        table.add_column(heading, no_wrap=True)
    for result, difference in zip(results, [None, *differences], strict=True):
        told = (str(difference), difference.verdict) if difference else ("", "")
        table.add_row(result.name, str(result).replace(", ", "\n"), *told, result.protocol)
    return table


def footer(results: Sequence[Result]) -> str:
    """What the rows of a table share, and what is behind each that was trained."""
    facts = [_facts(result) for result in results]
    lines = [", ".join(fact for fact in facts[0] if all(fact in other for other in facts))]
    for r in results:
        if r.meta_steps:
            plural = "s" if len(r.training_seeds) > 1 else ""
            lines.append(
                f"{r.name}: {r.protocol}, normalisation {r.normalization}, {r.meta_steps:,} "
                f"meta-steps, training seed{plural} {', '.join(map(str, r.training_seeds))}"
            )
    first = results[0]
    commit = f", commit {first.commit}" if first.commit else ""
    return "\n".join([*lines, f"kshot {first.versions['kshot']}{commit}"])


def _metric(results: Sequence[Result]) -> str:
    return "accuracy" if results[0].metric == "accuracy" else "squared error"


def _facts(result: Result) -> list[str]:
    return [
        f"{result.episodes:,} episodes",
        ("1 query" if result.spec["query"] == 1 else f"{result.spec['query']} queries")
        + (" per class" if result.metric == "accuracy" else ""),
        f"seed {result.seed}",
        f"hash {result.episode_hash}",
    ]
