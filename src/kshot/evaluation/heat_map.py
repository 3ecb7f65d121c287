"""The matrix of sources and targets as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot.evaluation.compare import Difference
from kshot.evaluation.plots import INK, RIGHT, WRONG
from kshot.evaluation.record import Result

Entry = tuple[str, str, Result, Mapping[str, Difference]]
"""Source run, target, score, gains over the rivals."""


def transfer_map(entries: Sequence[Entry]) -> Figure:
    """Accuracy of each source run on each target, and its paired gain over each rival.

    Args:
        entries: every run on every target, with the same rivals.
    """
    runs = list(dict.fromkeys(run for run, *_ in entries))
    targets = list(dict.fromkeys(target for _, target, *_ in entries))
    rivals = list(entries[0][3])
    size = (1.6 + (1 + len(rivals)) * (0.9 * len(targets) + 0.7), 1.4 + 0.5 * len(runs))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, 1 + len(rivals), sharey=True)
    first = entries[0][2]
    figure.suptitle(
        f"{first.task}, {first.episodes:,} episodes; grey: not told apart", fontsize=10, color=INK
    )
    scores = {(run, target): 100 * result.mean for run, target, result, _ in entries}
    _panel(panels[0], "accuracy, %", runs, targets, scores, {}, signed=False)
    for axes, rival in zip(panels[1:], rivals, strict=True):
        gains = {(run, target): 100 * g[rival].mean for run, target, _, g in entries}
        told = {(run, target): g[rival].verdict for run, target, _, g in entries}
        _panel(axes, f"points over\n{rival}", runs, targets, gains, told, signed=True)
    panels[0].set_yticks(range(len(runs)), runs, fontsize=8, parse_math=False)
    return figure


def _panel(
    axes: Axes,
    title: str,
    runs: Sequence[str],
    targets: Sequence[str],
    values: Mapping[tuple[str, str], float],
    told: Mapping[tuple[str, str], str],
    *,
    signed: bool,
) -> None:
    grid = np.array([[values[run, target] for target in targets] for run in runs])
    bound = max(abs(grid[np.isfinite(grid)]), default=0) or 1.0  # what diverged has no score
    if signed:
        axes.imshow(grid, cmap="PiYG", vmin=-bound, vmax=bound, aspect="auto", alpha=0.5)
    else:
        axes.imshow(grid, cmap="GnBu", vmin=0, vmax=100, aspect="auto", alpha=0.6)
    hues = {"better": RIGHT, "worse": WRONG, "not told apart": "#64748b"}
    for row, run in enumerate(runs):
        for column, target in enumerate(targets):
            color = hues.get(told.get((run, target), ""), INK)
            text = f"{values[run, target]:{'+' if signed else ''}.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    axes.set_title(title, fontsize=9, color=INK, parse_math=False)
    axes.set_xticks(
        range(len(targets)), targets, fontsize=8, rotation=30, ha="right", parse_math=False
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
