"""Pictures: everything on them can be read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox

import kshot
from kshot.episodes import class_names
from kshot.evaluation import paired_difference
from kshot.evaluation.plots import (
    CLASSES,
    comparison,
    embedding_map,
    episode_picture,
    result_bars,
    training_curve,
)
from kshot.testing import gaussians


def drawn(figure):
    """The figure's renderer, once everything has its place."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.fixture(scope="module")
def result():
    return kshot.evaluate(kshot.NearestNeighbour(), gaussians()["test"], query=2, episodes=3)


def test_pictures_are_drawn():
    digits = kshot.load("digits")["test"]
    e = kshot.draw(digits, kshot.EpisodeSpec(3, 2, 4), 0, [0])
    figure = episode_picture(e, kshot.NearestNeighbour()(e))
    assert len(figure.axes) == 3 * 2 + 3 * 4
    labels = digits.labels()[::60]
    figure = embedding_map(digits.x[::60].flatten(1).float(), labels)
    assert len(figure.legends[0].get_texts()) == len(labels.unique())
    result = kshot.evaluate(kshot.NearestNeighbour(), digits, episodes=3)
    assert result_bars([result]).axes[0].get_xlabel() == "accuracy, %"


def test_protocols_and_queries_are_bars_of_their_own():
    one = kshot.evaluate(kshot.NearestNeighbour(), gaussians()["test"], query=1, episodes=3)
    many = replace(one, spec=one.spec | {"query": 15}, episode_hash="another")
    axes = result_bars([one, many, replace(many, transductive=True, interval=0.5)]).axes[0]
    assert len({bar.get_y() for bar in axes.patches}) == 3
    assert axes.get_xlim() == (0, 100)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"gaussians/test\n5-way 1-shot, {n}" for n in ("1 query", "15 queries")]


def test_classes_have_their_names_in_a_picture():
    split, spec = kshot.load("digits")["test"], kshot.EpisodeSpec(3, 1, 2)
    episode = kshot.draw(split, spec, 0, [4])
    names = class_names(split, spec, 0, [4])[0]
    figure = episode_picture(episode, names=names)
    shown = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert shown == [f"{name}  {label}" for label, name in enumerate(names)]
    long = episode_picture(episode, names=["x" * 50, "b", "c"]).axes[0].get_ylabel()
    assert long == f"…{'x' * 28}  0"


@pytest.mark.parametrize("steps", [[1], [1, 2, 3], [*range(1, 21)], [*range(10, 2001, 10)]])
def test_steps_are_whole_numbers(steps):
    losses = [1.0 / step for step in steps]
    axes = training_curve(steps, losses, [(steps[-1], 0.5, 0.1)], "accuracy", steps[-1]).axes[0]
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("count", [6, 20, 30])
def test_every_method_has_a_colour_of_its_own(result, count):
    figure = result_bars([replace(result, name=f"method {n}") for n in range(count)])
    bars = figure.axes[0].patches
    assert len({to_hex(bar.get_facecolor()) for bar in bars}) == count
    (key,) = figure.legends
    assert key.get_window_extent(drawn(figure)).y0 >= figure.axes[0].get_window_extent().y1


def test_colours_can_be_told_apart():
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CLASSES])
    apart = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 255 * np.eye(len(rgb))
    assert apart.min() > 40


@pytest.mark.parametrize(
    "name", ["protonet-glyphs-001", "a/folder/with/a/long/path/to/runs/protonet-omniglot-001"]
)
def test_names_of_runs_stand_whole_in_a_comparison(result, name):
    results = [replace(result, name=name), replace(result, name=name + "-again")]
    figure = comparison(results, [paired_difference(results[1], results[0])])
    renderer = drawn(figure)
    left, right = figure.axes
    texts = [figure._suptitle, left.xaxis.label, right.xaxis.label, *left.get_yticklabels()]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    under = [axes.xaxis.label.get_window_extent(renderer) for axes in (left, right)]
    assert under[0].x1 < under[1].x0
    assert name in right.get_xlabel().replace("\n", "")


def wrong_answers():
    """An episode of 3 classes, and answers that are wrong for every query."""
    episode = kshot.draw(kshot.load("digits")["test"], kshot.EpisodeSpec(3, 1, 4), 0, [0])
    return episode, torch.nn.functional.one_hot((episode.query.y + 1) % 3, 3).float()


def test_a_wrong_answers_number_is_within_its_picture():
    episode, answers = wrong_answers()
    figure = episode_picture(episode, answers)
    renderer = drawn(figure)
    numbers = [(axes, text) for axes in figure.axes for text in axes.texts]
    assert [text.get_text() for _, text in numbers] == [*"1111", *"2222", *"0000"]
    for axes, text in numbers:
        frame, box = axes.get_window_extent(renderer), text.get_window_extent(renderer)
        assert frame.x0 < box.x0 < box.x1 <= frame.x1
        assert frame.y0 < box.y0 < box.y1 <= frame.y1


@pytest.mark.parametrize("title", ["", "digits/test, episode 0", "a data set of " * 9])
def test_support_and_queries_are_titled_apart(title):
    episode, _ = wrong_answers()
    figure = episode_picture(episode, title=title)
    renderer = drawn(figure)
    images = [axes.get_window_extent(renderer) for axes in figure.axes[:5]]
    headings = {t.get_text(): t.get_window_extent(renderer) for t in figure.texts}
    middle = {text: (box.x0 + box.x1) / 2 for text, box in headings.items()}
    assert middle["support"] == pytest.approx((images[0].x0 + images[0].x1) / 2, abs=2)
    assert middle["queries"] == pytest.approx((images[1].x0 + images[4].x1) / 2, abs=2)
    assert min(headings[text].y0 for text in ("support", "queries")) >= images[0].y1
    if title:
        box = figure._suptitle.get_window_extent(renderer)
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert headings["support"].y1 <= box.y0 < box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_embeddings_classes_have_names_and_pictures(channels):
    names = ["wolf", "x" * 40, "price_in_$_or_\\euro$"]
    labels = torch.arange(3).repeat_interleave(5)
    images = torch.rand(15, channels, 16, 12)
    figure = embedding_map(torch.randn(15, 4), labels, images, names)
    drawn(figure)
    (key,) = figure.legends
    shown = [text.get_text() for text in key.get_texts()]
    assert shown == ["wolf", "…" + "x" * 28, names[2]]
    thumbnails = [a for a in figure.axes[0].artists if isinstance(a, AnnotationBbox)]
    frames = [to_hex(t.patch.get_edgecolor()) for t in thumbnails]
    assert frames == [to_hex(dots.get_facecolor()[0]) for dots in figure.axes[0].collections]
    assert len(set(frames)) == 3
