"""The pictures of the methods that start from a pretrained encoder (see methods.py)."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from drawing import COLOURS, GREY, blank, plane, show_regions, show_support
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import kshot
from kshot.nn import add_adapter


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """Empty pictures side by side."""
    figure, axes = plt.subplots(1, count, figsize=(3.4 * count, 3.6), layout="constrained")
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def body() -> nn.Module:
    """A small network from the plane to the plane, the same each time."""
    torch.manual_seed(3)
    return nn.Sequential(kshot.nn.MLP(2, hidden=(32,)), nn.Linear(32, 2))


def embedded(encoder: nn.Module, x: Tensor) -> Tensor:
    """Points after the network."""
    with torch.no_grad():
        z: Tensor = encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return z


def show_points(axes: Axes, z: Tensor, y: Tensor, size: int = 40) -> None:
    """Embedded, labelled points."""
    for k, colour in enumerate(COLOURS):
        axes.scatter(*z[y == k].T, color=colour, s=size, zorder=3, edgecolor="white")
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def baseline() -> Figure:
    """A new last layer after 1, 10 and 100 mini-batches."""
    support, _ = plane()
    figure, axes = panels(3)
    for one, steps in zip(axes, (1, 10, 100), strict=True):
        learner = kshot.Baseline(
            nn.Identity(), features=2, way=3, classes=3, inner_steps=steps, inner_lr=0.1
        ).eval()
        show_regions(one, learner.adapt(support))
        show_support(one, support)
        one.set_title(f"{steps} mini-batch{'es' if steps > 1 else ''}")
    return figure


def baseline_plus_plus() -> Figure:
    """Each class is a direction."""
    support, _ = plane()
    torch.manual_seed(0)
    learner = kshot.BaselinePlusPlus(
        nn.Identity(), features=2, way=3, classes=3, scale=5, inner_lr=0.1, inner_steps=200
    ).eval()
    fit = learner.adapt(support)
    figure, axes = blank()
    show_regions(axes, fit)
    show_support(axes, support)
    rows = nn.functional.normalize(fit.state.head.weights["weight"][0], dim=-1)
    for row, colour in zip(rows, COLOURS, strict=True):
        arrow = {"arrowstyle": "->", "color": colour, "lw": 2.5}
        axes.annotate("", 1.6 * row, (0, 0), arrowprops=arrow)
    axes.set_title("a query belongs to the class whose direction is nearest")
    return figure


def meta_baseline() -> Figure:
    """Cosines to class means, softer and sharper."""
    support, _ = plane()
    figure, axes = panels(3)
    for one, scale in zip(axes, (1.0, 10.0, 100.0), strict=True):
        learner = kshot.MetaBaseline(nn.Identity(), scale=scale).eval()
        show_regions(one, learner.adapt(support))
        show_support(one, support)
        one.set_title(f"factor {scale:g}")
    return figure


def simpleshot() -> Figure:
    """Embeddings far from the origin, and what centring makes of them."""
    support, queries = plane()
    far = support.x[0] + torch.tensor([3.0, 1.5])
    base = queries[0] + torch.tensor([3.0, 1.5])
    figure, axes = panels(2)
    axes[0].scatter(*base.T, color=GREY, s=10)
    axes[0].scatter(*base.mean(0), marker="x", s=80, color="black", zorder=4)
    axes[0].scatter(0, 0, marker="+", s=80, color="black")
    show_points(axes[0], far, support.y[0])
    axes[0].set_title("embeddings; grey: base classes")
    learner = kshot.SimpleShot(nn.Identity(), features=2).eval()
    learner.observe(base)
    unit = nn.functional.normalize(far - learner.head.mean, dim=-1)
    show_points(axes[1], unit, support.y[0])
    circle = torch.linspace(0, 6.2832, 100)
    axes[1].plot(circle.cos(), circle.sin(), color=GREY, linewidth=1, zorder=1)
    means = learner.adapt(kshot.Examples(far[None], support.y, way=3)).state.head.means[0]
    for mean, colour in zip(means, COLOURS, strict=True):
        axes[1].scatter(*mean, marker="*", s=280, color=colour, edgecolor="black", zorder=4)
    axes[1].set_title("centred, length 1; stars: class means")
    return figure


def rfs() -> Figure:
    """Logistic regression with a strong and a weak penalty."""
    support, _ = plane()
    figure, axes = panels(2)
    for one, penalty in zip(axes, (1.0, 0.01), strict=True):
        learner = kshot.RFS(nn.Identity(), penalty=penalty).eval()
        show_regions(one, learner.adapt(support))
        show_support(one, support)
        one.set_title(f"penalty {penalty:g}")
    return figure


def tip_adapter() -> Figure:
    """Class means alone, and with the cache's vote."""
    support, _ = plane(0.7)
    figure, axes = panels(2)
    for one, alpha, title in (
        (axes[0], 1e-6, "cosines to class means"),
        (axes[1], 10.0, "and the vote of the support"),
    ):
        learner = kshot.TipAdapter(nn.Identity(), alpha=alpha, beta=30.0, scale=5.0).eval()
        show_regions(one, learner.adapt(support))
        show_support(one, support)
        one.set_title(title)
    return figure


def fine_tuning() -> Figure:
    """What the network makes of the plane: the last layer alone, and all weights."""
    support, _ = plane(0.7)
    figure, axes = panels(3)
    shape = kshot.learners.TaskShape((2,), 3, 12)
    for one, fast, steps in zip(axes, ("last", "all", "all"), (50, 50, 500), strict=True):
        torch.manual_seed(0)
        learner = kshot.FineTuning.for_tasks(
            kshot.nn.MLP(2, hidden=(32, 32)), shape, fast=fast, inner_steps=steps, inner_lr=0.1
        ).eval()
        show_regions(one, learner.adapt(support))
        show_support(one, support)
        one.set_title(f"{'last layer' if fast == 'last' else 'all weights'}, {steps} steps")
    return figure


def pmf() -> Figure:
    """A support set in the plane of the embedding, before and after fine-tuning."""
    support, _ = plane(0.7)
    figure, axes = panels(2)
    for one, steps in zip(axes, (0, 40), strict=True):
        torch.manual_seed(0)
        learner = kshot.PMF(body(), test_steps=steps, inner_lr=0.01, views=False).eval()
        state = learner.adapt(support).state.head
        start = dict(learner.head.net.named_parameters())
        weights = {n: w[0] for n, w in state.weights.items()} or start
        with torch.no_grad():
            z = torch.func.functional_call(learner.head.net, weights, (support.x[0],))
        unit = nn.functional.normalize(z, dim=-1)
        show_points(one, unit.detach(), support.y[0])
        for mean, colour in zip(state.means[0].detach(), COLOURS, strict=True):
            end = nn.functional.normalize(mean, dim=-1)
            one.annotate("", end, (0, 0), arrowprops={"arrowstyle": "->", "color": colour, "lw": 2})
        one.set(title=f"{steps} steps", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    return figure


def mtl() -> Figure:
    """A pretrained kernel, the factors and offsets that the outer loop moves, and their product."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 3)
    net = nn.Sequential(layer)
    names = add_adapter(net, "scale_shift")
    before = layer.weight.detach().clone()
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        parameters[names[0]].mul_(torch.rand(4, 4, 1, 1) * 2.4 - 0.2)
    figure, axes = panels(3)
    tiles = (
        ("frozen kernels W", before),
        ("factors, one a kernel", parameters[names[0]].detach().expand(4, 4, 3, 3)),
        ("W times the factors", layer.weight.detach()),
    )
    for one, (title, kernels) in zip(axes, tiles, strict=True):
        wide = nn.functional.pad(kernels, (0, 1, 0, 1), value=float("nan"))
        bound = float(before.abs().max()) * (7 if "factors, one" in title else 1)
        picture = wide.permute(0, 2, 1, 3).reshape(16, 16)
        one.imshow(picture, cmap="PiYG", vmin=-bound, vmax=bound)
        one.set(title=title, xlabel="input channels", ylabel="output channels")
        one.set_xticks([])
        one.set_yticks([])
        one.spines[:].set_visible(False)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    f.__name__: f
    for f in (baseline, baseline_plus_plus, fine_tuning, meta_baseline, mtl, pmf, rfs, simpleshot)
} | {"tip_adapter": tip_adapter}
