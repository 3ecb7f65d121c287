"""What people look at: curves, episodes with predictions, embeddings, fitted functions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from kshot.evaluation.compare import Difference
from kshot.evaluation.record import Result, scale
from kshot.types import Episode, Gaussian, Output

INK, RIGHT, WRONG, SOFT = "#1f2937", "#0d9488", "#e11d48", "#94a3b8"
HUES = (
    f"{RIGHT} #6366f1 #f59e0b #be123c #84cc16 #0ea5e9 #f472b6 #78350f #166534 #1e3a8a #c084fc "
    "#fde047 #ea580c #5eead4 #475569 #a16207 #86198f #fdba74"
).split()
GREYS = [SOFT, "#cbd5e1"]
METHODS, CLASSES = [HUES[0], *GREYS, *HUES[1:]], [*HUES, *GREYS]
"""Colours, all of which can be told apart; most tables have one method above two baselines."""

MAX_COLUMNS = 12
LONGEST = 28
"""Characters of a class's name."""

LINE = 0.17
"""Inches between two lines of a text of 10 points."""


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
    left.xaxis.set_major_locator(
        MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    )
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
            wrong one carries, in its corner, the number of the class that was answered instead.
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
    above = _wrap(title, int(12 * width))
    head = 0.3 + LINE * len(above.splitlines())
    height = 0.66 * episode.way + head + 0.1
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        episode.way,
        shots + queries + 1,
        width_ratios=[1] * shots + [0.5] + [1] * queries,
        left=margin / width,
        right=1 - 0.2 / width,
        bottom=0.1 / height,
        top=1 - head / height,
        hspace=0.1,
    )
    for text, part in (("support", grid[0, :shots]), ("queries", grid[0, shots + 1 :])):
        box = part.get_position(figure)
        middle, top = (box.x0 + box.x1) / 2, box.y1 + 0.06 / height
        figure.text(middle, top, text, ha="center", va="bottom", fontsize=9, color=INK)
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
                    parse_math=False,
                )
        for j, row in enumerate(columns[1][label][:queries]):
            axes = figure.add_subplot(grid[label, shots + 1 + j])
            right = answers is None or int(answers[row]) == label
            _image(axes, query.x[0, row], SOFT if answers is None else RIGHT if right else WRONG)
            if answers is not None and not right:
                _badge(axes, str(int(answers[row])))
    if title:
        figure.suptitle(above, y=1 - 0.05 / height, fontsize=10, color=INK, parse_math=False)
    return figure


def _badge(axes: Axes, text: str) -> None:
    """A short text within the upper right corner of a picture that was answered wrongly."""
    axes.annotate(
        text,
        (1, 1),
        (-1.5, -1.5),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=7,
        color="white",
        bbox={"facecolor": WRONG, "linewidth": 0, "pad": 1.2},
    )


def _label(number: int, name: Hashable = "") -> str:
    """The name of a class and its number in its task."""
    return f"{_short(name)}  {number}".strip()


def _short(name: Hashable) -> str:
    """A name or, of a long one, the end, which tells most."""
    text = str(name)
    return text if len(text) <= LONGEST else "…" + text[-LONGEST:]


def _wrap(text: str, width: int) -> str:
    """The text in lines of at most `width` characters; longer words are broken."""
    return "\n".join(textwrap.wrap(text, width))


def class_colors(count: int) -> list[str]:
    """The colour of each class on a map, in the order of the labels."""
    return _colors(count, CLASSES)


def _colors(count: int, palette: list[str]) -> list[str]:
    """As many different colours, from the palette as far as it goes."""
    if count <= len(palette):
        return palette[:count]
    return [to_hex(colormaps["turbo"](k / (count - 1))) for k in range(count)]


def _values(output: Output) -> Tensor:
    return output.mean if isinstance(output, Gaussian) else output


def _by_class(y: Tensor, real: Tensor, way: int) -> list[list[int]]:
    return [((y[0] == label) & real[0]).nonzero().squeeze(1).tolist() for label in range(way)]


def _pixels(x: Tensor) -> NDArray[Any]:
    """An image `(1 or 3, height, width)` as matplotlib takes it."""
    picture = x.detach().cpu().clamp(0, 1)
    return np.asarray(picture[0] if len(picture) == 1 else picture.permute(1, 2, 0))


def _image(axes: Axes, x: Tensor, color: str) -> None:
    axes.imshow(_pixels(x), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_color(color)
        side.set_linewidth(1.8)


def embedding_map(
    features: Tensor,
    labels: Tensor,
    images: Tensor | None = None,
    names: Sequence[Hashable] | None = (),
) -> Figure:
    """Embeddings of unseen classes in the plane (t-SNE), a colour for each class.

    Args:
        features: `(examples, features)`.
        labels: `(examples,)`, 20 classes at most for colours that can be told apart.
        images: `(examples, 1 or 3, height, width)`; the first of each class stands above its
            middle, in a frame of its colour.
        names: of the classes, by their labels, for the key; where there are none, it shows the
            labels; None leaves the key to the caller (see `class_colors`).
    """
    from sklearn.manifold import TSNE

    perplexity = min(15.0, (len(features) - 1) / 3)
    wide = F.pad(features, (0, max(0, 2 - features.shape[1])))  # two axes to start from
    flat = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(wide.numpy())
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.add_subplot()
    classes = labels.unique().tolist()
    dots = []
    for label, color in zip(classes, class_colors(len(classes)), strict=True):
        chosen = labels == label
        points = flat[chosen.numpy()]
        x, y = points.T
        dots.append(axes.scatter(x, y, color=color, s=14, alpha=0.8, linewidths=0))
        if images is not None:
            _thumbnail(axes, images[chosen][0], np.median(points, axis=0), color)
    axes.axis("off")
    if names is None:
        return figure
    key = figure.legend(
        dots,
        [_short(names[label] if names else label) for label in classes],
        loc="outside right center",
        frameon=False,
        fontsize=8,
        markerscale=2,
    )
    for text in key.get_texts():
        text.set_parse_math(False)
    return figure


def _thumbnail(axes: Axes, image: Tensor, at: NDArray[np.float64], color: str) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    zoom = 22 / max(image.shape[1:])  # to 22 points
    axes.add_artist(
        AnnotationBbox(
            OffsetImage(_pixels(image), cmap="gray_r", zoom=zoom, alpha=0.9),
            tuple(at),
            xybox=(0, 26),
            boxcoords="offset points",
            pad=0.15,
            bboxprops={"lw": 1.5, "edgecolor": color},
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
    columns = 3
    key = LINE * math.ceil(len(names) / columns)
    figure = Figure(
        figsize=(8, 0.5 + key + 0.55 * len(groups) * max(1, len(names) / 2)), layout="constrained"
    )
    axes = figure.add_subplot()
    height = 0.8 / len(names)
    for n, (name, color) in enumerate(zip(names, _colors(len(names), METHODS), strict=True)):
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
            color=color,
            label=", ".join(name),
        )
    axes.set_yticks(
        [-g - 0.4 + height / 2 for g in range(len(groups))],
        [f"{_wrap(r.where, 40)}\n{r.tasks}" for r in groups.values()],
    )
    axes.set_xlabel("accuracy, %" if results[0].metric == "accuracy" else "mean squared error")
    if results[0].metric == "accuracy":
        axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=columns)
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
    labels = [f"{_wrap(r.name, 28)}\n{r.protocol}" for r in results]
    title = _wrap(f"{first.heading}, {first.episodes:,} episodes", 100)
    points = ", points" if unit else ""
    below = _wrap(f"difference from {first.name}{points}, 95\N{NO-BREAK SPACE}% intervals", 40)
    row_height = 0.16 + LINE * max(len(label.splitlines()) for label in labels)
    height = 0.86 + LINE * len((title + "\n" + below).splitlines()) + row_height * len(results)
    figure = Figure(figsize=(9, height), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    left, right = figure.subplots(1, 2, sharey=True)
    rows = range(len(results))
    left.set_xlabel(f"{metric}, 95 % intervals")
    left.set_yticks(rows, labels, parse_math=False)
    left.set_ylim(len(results) - 0.5, -0.5)
    for row, result in zip(rows, results, strict=True):
        _interval(left, row, factor * result.mean, factor * result.interval, INK)
    if first.metric == "accuracy":
        left.set_xlim(right=min(left.get_xlim()[1], 100))
    right.axvline(0, color=SOFT, ls=":", lw=1)
    right.set_xlabel(below, parse_math=False)
    colors = {"better": RIGHT, "worse": WRONG, "not told apart": SOFT}
    for row, d in zip(rows[1:], differences, strict=True):
        _interval(right, row, factor * d.mean, factor * d.interval, colors[d.verdict])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _interval(axes: Axes, row: int, middle: float, half: float, color: str) -> None:
    axes.errorbar(middle, row, xerr=half, color=color, marker="o", ms=4, capsize=3)
