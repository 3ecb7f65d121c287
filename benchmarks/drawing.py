"""What the pictures of the methods share: points in the plane, regions, colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import kshot

IMAGES = Path(__file__).parent.parent / "docs" / "images" / "methods"
COLOURS = ("#0d9488", "#e11d48", "#6366f1")
GREY = "#94a3b8"


def plane(spread: float = 0.35) -> tuple[kshot.Examples, Tensor]:
    """Three classes of four points in the plane, and unlabelled points around them."""
    torch.manual_seed(1)
    centres = torch.tensor([[1.0, 0.2], [-0.5, 0.9], [-0.4, -0.9]])
    x = centres.repeat_interleave(4, 0) + spread * torch.randn(12, 2)
    queries = centres.repeat_interleave(20, 0) + spread * torch.randn(60, 2)
    y = torch.arange(3).repeat_interleave(4)
    return kshot.Examples(x[None], y[None], way=3), queries[None]


def blank(width: float = 6.4, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty picture."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def show_support(axes: Axes, support: kshot.Examples) -> None:
    """The labelled points."""
    for k, colour in enumerate(COLOURS):
        x = support.x[0][support.y[0] == k]
        axes.scatter(*x.T, color=colour, s=40, zorder=3, edgecolor="white")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def show_regions(axes: Axes, predictor: Callable[[Tensor], Any]) -> None:
    """How sure the answers are, as colours behind the points."""
    size = 160
    side = torch.linspace(-2, 2, size)
    y, x = torch.meshgrid(side, side, indexing="ij")
    with torch.no_grad():
        p = predictor(torch.stack([x, y], -1).reshape(1, -1, 2)).softmax(-1)[0]
    colours = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    image = 1 - 0.45 * (1 - (p @ colours)).reshape(size, size, 3)
    axes.imshow(image, extent=(-2, 2, -2, 2), origin="lower", interpolation="bilinear")
