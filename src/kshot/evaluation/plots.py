"""What people look at: curves, episodes with predictions, embeddings, fitted functions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from kshot.evaluation.compare import Difference
from kshot.evaluation.record import Result, scale
from kshot.types import Episode, Gaussian, Output

INK, RIGHT, WRONG, SOFT = "#1f2937", "#0d9488", "#e11d48", "#94a3b8"
MAX_COLUMNS = 12
LONGEST = 28
"""Characters of a class's name."""


def training_curve(
    steps: Sequence[int],
    losses: Sequence[float],
    validation: Sequence[tuple[int, float, float]],
    metric: str,
    best_step: int,
) -> Figure:
    """Loss and validation score over the outer steps.

    Args:
        steps: of the losses.
        losses: smoothed.
        validation: step, score and half-width of its interval.
        metric: `accuracy` or `mse`.
        best_step: marked.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    left = figure.add_subplot()
    left.plot(steps, losses, color=SOFT, label="training loss")
    left.set(xlabel="outer step", ylabel="training loss")
    if validation:
        factor = 100 if metric == "accuracy" else 1
        at, score, interval = (np.array(column) for column in zip(*validation, strict=True))
        right = left.twinx()
        right.errorbar(
            at, factor * score, factor * interval, color=RIGHT, marker="o", ms=3, capsize=2
        )
        right.set_ylabel(
            "validation accuracy, %" if factor == 100 else "validation squared error", color=RIGHT
        )
        right.axvline(best_step, color=RIGHT, ls=":", lw=1)
        if factor == 100:
            right.set_ylim(top=min(right.get_ylim()[1], 100))
        right.spines["top"].set_visible(False)
    left.spines["top"].set_visible(False)
    return figure


def episode_picture(
    episode: Episode,
    output: Output | None = None,
    title: str = "",
    names: Sequence[Hashable] = (),
) -> Figure:
    """The first task of a meta-batch: support on the left, queries on the right, row by class.

    Args:
        episode: of images.
        output: the answers; a query's frame then tells whether it was answered rightly, and a
            wrong one carries the number of the class that was answered instead.
        title: above it.
        names: of the task's classes, to stand beside their numbers.
    """
    support, query = episode.support, episode.query
    answers = None if output is None else _values(output)[0].argmax(-1)
    columns = [_by_class(part.y, part.real, episode.way) for part in (support, query)]
    shots = min(max(len(c) for c in columns[0]), MAX_COLUMNS)
    queries = min(max(len(c) for c in columns[1]), MAX_COLUMNS)
    labels = [_label(number, *names[number : number + 1]) for number in range(episode.way)]
    margin = 0.4 + 0.07 * max(map(len, labels))
    width = 0.62 * (shots + queries) + 0.4 + margin
    figure = Figure(figsize=(width, 0.66 * episode.way + 0.5))
    grid = figure.add_gridspec(
        episode.way,
        shots + queries + 1,
        width_ratios=[1] * shots + [0.5] + [1] * queries,
        left=margin / width,
        right=1 - 0.2 / width,
    )
    for label in range(episode.way):
        for j, row in enumerate(columns[0][label][:shots]):
            axes = figure.add_subplot(grid[label, j])
            _image(axes, support.x[0, row], INK)
            if j == 0:
                axes.set_ylabel(
                    labels[label],
                    rotation=0,
                    labelpad=5,
                    ha="right",
                    va="center",
                    color=INK,
                    fontsize=8,
                )
        for j, row in enumerate(columns[1][label][:queries]):
            axes = figure.add_subplot(grid[label, shots + 1 + j])
            right = answers is None or int(answers[row]) == label
            _image(axes, query.x[0, row], SOFT if answers is None else RIGHT if right else WRONG)
            if answers is not None and not right:
                axes.set_title(str(int(answers[row])), fontsize=8, color=WRONG, pad=1.5)
    figure.suptitle(title or "support | queries", fontsize=10, color=INK)
    return figure


def _label(number: int, name: Hashable = "") -> str:
    """The number of a class in its task, and the end of its name, which tells most."""
    text = str(name)
    return f"{text if len(text) <= LONGEST else '…' + text[-LONGEST:]}  {number}".strip()


def _values(output: Output) -> Tensor:
    return output.mean if isinstance(output, Gaussian) else output


def _by_class(y: Tensor, real: Tensor, way: int) -> list[list[int]]:
    return [((y[0] == label) & real[0]).nonzero().squeeze(1).tolist() for label in range(way)]


def _image(axes: Axes, x: Tensor, color: str) -> None:
    picture = x.detach().cpu()
    if picture.shape[0] == 1:
        axes.imshow(picture[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
    else:
        axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color(color)
        side.set_linewidth(1.8)


def embedding_map(features: Tensor, labels: Tensor, images: Tensor | None = None) -> Figure:
    """Embeddings of unseen classes in the plane (t-SNE), a colour for each class.

    Args:
        features: `(examples, features)`.
        labels: `(examples,)`, 20 classes at most for colours that can be told apart.
        images: `(examples, 1, height, width)`; the first of each class stands above its middle.
    """
    from sklearn.manifold import TSNE

    perplexity = min(15.0, (len(features) - 1) / 3)
    flat = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy())
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(
        flat[:, 0], flat[:, 1], c=labels.numpy(), cmap="tab20", s=14, alpha=0.8, linewidths=0
    )
    for label in labels.unique():
        chosen = (labels == label).numpy()
        middle: NDArray[np.float64] = np.median(flat[chosen], axis=0)
        if images is not None:
            _thumbnail(axes, images[torch.from_numpy(chosen)][0, 0], middle)
        else:
            axes.annotate(
                str(int(label)), (middle[0], middle[1]), color=INK, ha="center", va="center"
            )
    axes.axis("off")
    return figure


def _thumbnail(axes: Axes, image: Tensor, at: NDArray[np.float64]) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    box = OffsetImage(image.numpy(), cmap="gray_r", zoom=0.75, alpha=0.9)
    axes.add_artist(
        AnnotationBbox(
            box,
            tuple(at),
            xybox=(0, 26),
            boxcoords="offset points",
            pad=0.15,
            bboxprops={"lw": 0.6, "edgecolor": SOFT},
        )
    )


def function_fits(
    episode: Episode, truth: Tensor, fits: Sequence[tuple[str, Output]], tasks: int = 3
) -> Figure:
    """Regression on one-dimensional inputs: the truth, the support, and each fit.

    Args:
        episode: its queries are a grid of inputs, in order.
        truth: values on the grid, `(tasks, grid, 1)`.
        fits: name and prediction on the grid; a Gaussian gets its 90 % band.
        tasks: how many to draw.
    """
    figure = Figure(figsize=(4 * tasks, 3.2), layout="constrained")
    colors = [SOFT, "#f59e0b", RIGHT, "#6366f1"]
    for task in range(tasks):
        axes = figure.add_subplot(1, tasks, task + 1)
        grid = episode.query.x[task, :, 0]
        axes.plot(grid, truth[task, :, 0], color=INK, lw=2, label="true function")
        for (name, output), color in zip(fits, colors, strict=False):
            mean = _values(output)[task, :, 0]
            axes.plot(grid, mean, color=color, ls="--", label=name)
            if isinstance(output, Gaussian):
                band = 1.645 * output.std[task, :, 0]
                axes.fill_between(grid, mean - band, mean + band, color=color, alpha=0.2, lw=0)
        axes.plot(
            episode.support.x[task, :, 0],
            episode.support.y[task, :, 0],
            "v",
            color=WRONG,
            label="support",
        )
        axes.spines[["top", "right"]].set_visible(False)
        if task == 0:
            axes.legend(fontsize=8, frameon=False)
    return figure


def result_bars(results: Sequence[Result]) -> Figure:
    """Scores with their 95 % intervals, grouped by task; a colour for each method and protocol."""
    groups = {(r.heading, r.episode_hash): r for r in results}
    places = list(groups)
    names = list(dict.fromkeys((r.name, r.protocol) for r in results))
    figure = Figure(
        figsize=(8, 0.6 + 0.55 * len(groups) * max(1, len(names) / 2)), layout="constrained"
    )
    axes = figure.add_subplot()
    colors = [RIGHT, SOFT, "#cbd5e1", "#6366f1", "#f59e0b"]
    height = 0.8 / len(names)
    for n, name in enumerate(names):
        rows = [
            (places.index((r.heading, r.episode_hash)), r)
            for r in results
            if (r.name, r.protocol) == name
        ]
        factor = 100 if rows[0][1].metric == "accuracy" else 1
        axes.barh(
            [-g - n * height for g, _ in rows],
            [factor * r.mean for _, r in rows],
            height * 0.92,
            xerr=[factor * r.interval for _, r in rows],
            color=colors[n % len(colors)],
            label=", ".join(name),
        )
    axes.set_yticks(
        [-g - 0.4 + height / 2 for g in range(len(groups))],
        [f"{r.where}\n{r.tasks}" for r in groups.values()],
    )
    axes.set_xlabel("accuracy, %" if results[0].metric == "accuracy" else "mean squared error")
    if results[0].metric == "accuracy":
        axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    return figure


def comparison(results: Sequence[Result], differences: Sequence[Difference]) -> Figure:
    """Scores, and differences from the first method, with their 95 % intervals.

    Args:
        results: the reference first; on the same episodes.
        differences: of the other results, in their order.
    """
    first = results[0]
    factor, _, unit = scale(first.metric)
    metric = "accuracy, %" if first.metric == "accuracy" else "mean squared error"
    figure = Figure(figsize=(9, 1.2 + 0.5 * len(results)), layout="constrained")
    figure.suptitle(f"{first.heading}, {first.episodes:,} episodes", fontsize=10)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(results))
    labels = [f"{r.name}\n{r.protocol}" for r in results]
    left.set(xlabel=f"{metric}, 95 % intervals", yticks=rows, yticklabels=labels)
    left.set_ylim(len(results) - 0.5, -0.5)
    for row, result in zip(rows, results, strict=True):
        _interval(left, row, factor * result.mean, factor * result.interval, INK)
    if first.metric == "accuracy":
        left.set_xlim(right=min(left.get_xlim()[1], 100))
    right.axvline(0, color=SOFT, ls=":", lw=1)
    right.set_xlabel(f"difference from {first.name}{unit and ', points'}, 95 % intervals")
    colors = {"better": RIGHT, "worse": WRONG, "not told apart": SOFT}
    for row, d in zip(rows[1:], differences, strict=True):
        _interval(right, row, factor * d.mean, factor * d.interval, colors[d.verdict])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _interval(axes: Axes, row: int, middle: float, half: float, color: str) -> None:
    axes.errorbar(middle, row, xerr=half, color=color, marker="o", ms=4, capsize=3)
