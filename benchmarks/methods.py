"""Draw the picture that explains each method: python benchmarks/methods.py [NAME ...]

Every picture is what the learner itself does, on points in the plane, on sinusoids after a short
meta-training, or on a small function. Takes about five minutes for all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from drawing import COLOURS, GREY, IMAGES, blank, plane, show_regions, show_support
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from transfer_methods import PICTURES as TRANSFER

import kshot
from kshot.engine import SGD, adapt_weights, trajectory
from kshot.evaluation.report import save_figure
from kshot.learners.matching import attention
from kshot.learners.snail import AttentionBlock, SnailHead
from kshot.types import Gaussian


def protonet() -> Figure:
    """Class means, and the regions that are nearest to each."""
    support, _ = plane()
    predictor = kshot.ProtoNet(nn.Identity()).eval().adapt(support)
    figure, axes = blank()
    show_regions(axes, lambda x: 3 * predictor(x))
    show_support(axes, support)
    for mean, colour in zip(predictor.state.head.means[0], COLOURS, strict=True):
        axes.scatter(*mean, marker="*", s=320, color=colour, edgecolor="black", zorder=4)
    axes.set_title("stars: class means; a query belongs to the nearest")
    return figure


def matching() -> Figure:
    """A query and the weight that it gives to each support example."""
    support, _ = plane()
    learner = kshot.MatchingNet(nn.Identity(), temperature=0.1).eval()
    memory = learner.adapt(support).state.head
    query = torch.tensor([[[0.55, 0.75]]])
    weights = attention(kshot.functional.cosine_similarity(query, memory.g) / 0.1, memory.real)
    figure, axes = blank()
    for x, weight in zip(memory.g[0], weights.exp()[0, 0], strict=True):
        ends = torch.stack([query[0, 0], x])
        axes.plot(*ends.T, color="#334155", linewidth=10 * float(weight), alpha=0.7, zorder=2)
    show_support(axes, support)
    axes.scatter(*query[0, 0], marker="s", s=90, color="black", zorder=4)
    axes.scatter(0, 0, marker="+", s=60, color=GREY)
    p = learner.adapt(support)(query)[0, 0].exp().tolist()
    shares = ", ".join(f"{share:.0%}" for share in p)
    axes.set_title(f"a query's attention by cosine; the classes' sums: {shares}")
    return figure


def tim() -> Figure:
    """Class weights before and after the queries have had their say."""
    support, queries = plane(0.5)
    one = kshot.Examples(support.x[:, ::4], support.y[:, ::4], way=3)
    unlabelled = kshot.Examples(queries, torch.zeros(1, 60, dtype=torch.long), way=3)
    figure, axes = blank()
    unit = nn.functional.normalize(queries[0], dim=-1)
    axes.scatter(*unit.T, color=GREY, s=16)
    ends = []
    for steps in (0, 300):
        learner = kshot.TIM(nn.Identity(), steps=steps, inner_lr=1e-3).eval()
        ends.append(learner.adapt(one, unlabelled).state.head.weights[0])
    for before, after, colour in zip(*ends, COLOURS, strict=True):
        axes.annotate("", after, before, arrowprops={"arrowstyle": "->", "color": colour, "lw": 2})
        axes.scatter(*before, marker="o", s=60, color=colour, edgecolor="white", zorder=3)
        axes.scatter(*after, marker="*", s=280, color=colour, edgecolor="black", zorder=3)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("class weights move from one example (dot) to fit all queries (grey)")
    return figure


def network() -> nn.Module:
    """The sinusoids' network."""
    torch.manual_seed(0)
    return nn.Sequential(kshot.nn.MLP(1, hidden=(40, 40)), nn.Linear(40, 1))


def trained(learner: kshot.MetaLearner, steps: int, **options: Any) -> kshot.MetaLearner:
    """A short meta-training on sinusoids."""
    waves = kshot.load("sinusoid")
    arguments = {"shot": 10, "query": 10, "meta_batch": 25, "lr": 1e-3} | options
    kshot.meta_train(learner, waves["train"], steps=steps, progress=False, **arguments)
    return learner.eval()


def wave(shot: int) -> tuple[kshot.Episode, Tensor]:
    """One unseen sinusoid and where to look at it."""
    spec = kshot.EpisodeSpec(shot=shot, query=200)
    episode = kshot.draw(kshot.load("sinusoid")["test"], spec, 3, [1])
    return episode, torch.linspace(-5, 5, 200)[None, :, None]


def show_wave(axes: Axes, episode: kshot.Episode) -> None:
    """The truth and the points that were given."""
    order = episode.query.x[0, :, 0].argsort()
    axes.plot(episode.query.x[0, order], episode.query.y[0, order], color=GREY, linewidth=6)
    axes.scatter(episode.support.x[0], episode.support.y[0], color="black", zorder=4, s=36)
    axes.set_xlabel("x")
    axes.set_ylabel("y")


def fits(learner: kshot.MetaLearner, counts: tuple[int, ...], title: str) -> Figure:
    """What the network answers after some numbers of inner steps on five points."""
    episode, x = wave(5)
    figure, axes = blank()
    show_wave(axes, episode)
    for count, colour in zip(counts, (COLOURS[2], COLOURS[1], COLOURS[0]), strict=True):
        with learner.head.at_test(count), torch.no_grad():  # type: ignore[operator]
            y = learner.adapt(episode.support)(x)[0, :, 0]  # type: ignore[index]
        axes.plot(x[0, :, 0], y, color=colour, linewidth=2, label=f"{count} steps")
    axes.legend(frameon=False)
    axes.set_title(title)
    return figure


def maml() -> Figure:
    """From a start that fits no wave, a few steps fit this one."""
    learner = trained(kshot.MAML(network(), inner_lr=0.01), 3000)
    return fits(learner, (0, 1, 10), "five points of an unseen wave (grey), and the answers")


def anil() -> Figure:
    """The same with the last layer alone."""
    torch.manual_seed(0)
    body = kshot.nn.MLP(1, hidden=(40, 40))
    learner = trained(kshot.ANIL(body, features=40, inner_lr=0.01, inner_steps=5), 3000)
    return fits(learner, (0, 5, 20), "only the last layer moves: a sum of 40 learned features")


def reptile() -> Figure:
    """The outer step goes towards the mean of where the tasks' trainings end."""
    figure, axes = blank()
    start = torch.tensor([0.0, 0.0])
    ends = []
    tasks = (([2.0, 0.4], [1.0, 4.0]), ([0.5, 1.9], [3.0, 0.8]))
    for (goal, curvature), colour in zip(tasks, COLOURS, strict=False):

        def loss(weights: dict[str, Tensor], k: int, goal=goal, curvature=curvature) -> Tensor:  # type: ignore[no-untyped-def]
            return (torch.tensor(curvature) * (weights["w"] - torch.tensor(goal)) ** 2).sum() / 2

        steps = trajectory(loss, {"w": start}, SGD(0.2), 6, gradient="none")
        path = torch.stack([weights["w"] for weights, _ in steps])
        ends.append(adapt_weights(loss, {"w": start}, SGD(0.2), 6)["w"])
        axes.plot(*path.T, "o-", color=colour, label="inner steps on a task")
        axes.scatter(*goal, marker="x", s=80, color=colour, label="its optimum")
    mean = torch.stack(ends).mean(0)
    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 2.5}
    axes.annotate("", 0.5 * mean, start, arrowprops=arrow)
    axes.scatter(*mean, marker="D", s=50, color="black", label="mean of the ends")
    axes.annotate("outer step, epsilon = 0.5", 0.5 * mean, (12, -16), textcoords="offset points")
    axes.set_xlabel("weight 1")
    axes.set_ylabel("weight 2")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("no query and no second derivative: follow the weights themselves")
    return figure


def meta_lstm() -> Figure:
    """The gates that a trained rule chooses, step by step."""
    learner = trained(kshot.MetaLSTM(network(), inner_steps=5), 400, clip=0.25, meta_batch=8)
    episode, _ = wave(10)
    head = learner.head

    def loss(weights: dict[str, Tensor], k: int) -> Tensor:
        answer = torch.func.functional_call(head.net, weights, (episode.support.x[0],))  # type: ignore[arg-type]
        return ((answer - episode.support.y[0]) ** 2).mean()

    with torch.no_grad():
        steps = trajectory(loss, head.fast_weights(), head.rule, 5, gradient="none")  # type: ignore[operator,arg-type]
        states = [state for _, state in steps][1:]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")
    for axes, gate, name in (
        (left, "input_gate", "input gate: the learning rate"),
        (right, "forget_gate", "forget gate: what stays"),
    ):
        values = [getattr(state, gate).flatten().numpy() for state in states]
        axes.violinplot(values, showmedians=True)
        axes.set_title(name)
        axes.set_xlabel("inner step")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("over all coordinates")
    return figure


def snail() -> Figure:
    """Which inputs each output of the trunk depends on, by its gradient."""
    torch.manual_seed(0)
    head = SnailHead(4, way=3, length=15, embedding=4, filters=16)
    x = torch.randn(1, 16, 7, requires_grad=True)
    real = torch.ones(1, 16, dtype=torch.bool)
    out = x
    for block in head.blocks:
        out = block(out, real) if isinstance(block, AttentionBlock) else block(out)
    rows = []
    for t in range(16):
        (gradient,) = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)
        rows.append(gradient[0].abs().sum(-1))
    figure, axes = blank(5.2, 4.4)
    depends = torch.stack(rows)
    axes.imshow(depends.clamp_min(1e-3).log(), cmap="GnBu")
    axes.set_xlabel("input: labelled examples, the query last")
    axes.set_ylabel("output")
    axes.set_title("no output sees a later input")
    return figure


def r2d2() -> Figure:
    """Ridge regression on learned features, before and after meta-training."""
    episode, x = wave(10)
    figure, axes = blank()
    show_wave(axes, episode)
    for steps, colour, label in ((0, COLOURS[2], "random"), (1500, COLOURS[0], "meta-trained")):
        torch.manual_seed(0)
        learner = kshot.R2D2(kshot.nn.MLP(1, hidden=(40, 40)), scale=None, penalty=0.1).eval()
        if steps:
            trained(learner, steps)
        with torch.no_grad():
            y = learner.adapt(episode.support)(x)
        assert isinstance(y, Tensor)
        axes.plot(x[0, :, 0], y[0, :, 0], color=colour, linewidth=2, label=f"{label} features")
    axes.legend(frameon=False)
    axes.set_title("one linear solve on ten points")
    return figure


def cnp() -> Figure:
    """Mean and two standard deviations from few and from many points."""
    learner = trained(kshot.CNP(1, std_floor=0.01), 3000)
    figure, both = plt.subplots(1, 2, figsize=(8.4, 3.6), layout="constrained", sharey=True)
    whole, x = wave(10)
    for axes, shot in zip(both, (3, 10), strict=True):
        points = kshot.Examples(whole.support.x[:, :shot], whole.support.y[:, :shot])
        with torch.no_grad():
            answer = learner.adapt(points)(x)
        assert isinstance(answer, Gaussian)
        mean, std = (part[0, :, 0] for part in answer)
        show_wave(axes, kshot.Episode(points, whole.query, whole.key))
        low, high = mean - 2 * std, mean + 2 * std
        axes.fill_between(x[0, :, 0], low, high, color=COLOURS[0], alpha=0.25)
        axes.plot(x[0, :, 0], mean, color=COLOURS[0], linewidth=2)
        axes.set_title(f"{shot} points")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def set_metric() -> Figure:
    """Two columns, of which one tells the classes apart: equal weights, and learned ones."""
    torch.manual_seed(5)
    y = torch.arange(3).repeat_interleave(5)
    x = torch.stack([torch.tensor([-1.0, 0.0, 1.0])[y], torch.zeros(15)], 1)
    x = x + torch.tensor([0.2, 0.9]) * torch.randn(15, 2)
    support = kshot.Examples(x[None], y[None], way=3)
    learner = kshot.SetMetric()
    kshot.meta_train(
        learner,
        kshot.load("tables")["train"],
        shot=20,
        query=5,
        meta_batch=16,
        steps=300,
        lr=3e-3,
        clip=10,
        progress=False,
    )
    figure, both = plt.subplots(1, 2, figsize=(7.6, 3.8), layout="constrained")
    plain = kshot.ProtoNet(nn.Identity()).eval()
    # Sharpened, each to its own scale of logits, so that the boundaries are seen.
    methods = [("all columns alike", plain, 2), ("learned", learner, 12)]
    for axes, (title, method, sharp) in zip(both, methods, strict=True):
        predictor = method.adapt(support)
        show_regions(axes, lambda points, ask=predictor, by=sharp: by * ask(points))
        show_support(axes, support)
        axes.set_title(title)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    f.__name__: f
    for f in (protonet, matching, r2d2, maml, anil, reptile, meta_lstm, snail, tim, cnp, set_metric)
} | TRANSFER


def main(names: list[str]) -> None:
    """Draw some of them, or all."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names or PICTURES:
        save_figure(PICTURES[name](), IMAGES / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
