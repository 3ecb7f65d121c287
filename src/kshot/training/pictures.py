"""The report of a run."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path

import torch
from matplotlib.figure import Figure

from kshot.datasets import Dataset, Split
from kshot.datasets.sinusoid import Sinusoids
from kshot.datasets.sources import feature_shape
from kshot.episodes import EpisodeSpec, class_names, draw
from kshot.episodes.sampler import episode_key
from kshot.episodes.spec import bounds
from kshot.errors import EpisodeError
from kshot.evaluation import Result, plots, predictions
from kshot.evaluation.embedding import embed_split
from kshot.evaluation.record import with_options
from kshot.evaluation.report import Picture, write_report
from kshot.learners import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.training.config import RunConfig
from kshot.training.state import History
from kshot.types import Episode, Examples

SHOWN_CLASSES = SHOWN_EXAMPLES = 20
SHOWN_SEED = 1
"""Of the episodes that are drawn, apart from those that are scored."""

VALIDATED = (
    "Smoothed training loss, and the score on frozen validation episodes with 95 % intervals; the "
    "dotted line marks the weights that were kept."
)

UNVALIDATED = "Smoothed training loss. Nothing was validated; the last weights were kept."


def run_report(
    folder: Path,
    config: RunConfig,
    learner: MetaLearner,
    data: Dataset,
    history: History,
    results: list[Result],
) -> None:
    """Write `report.html`: the table, the curve, episodes with predictions, the embedding."""
    learner = copy.deepcopy(learner).cpu().eval()
    pictures = []
    if history.rows:
        validated = any(row.validation is not None for row in history.rows)
        said = VALIDATED if validated else UNVALIDATED
        pictures.append(Picture("Meta-training", said, _curve(history)))
    test = data.splits.get("test")
    if isinstance(test, Split) and len(feature_shape(test.x)) == 3:
        pictures += _episode_pictures(learner, test, config)
        if learner.pointwise:
            pictures.append(_embedding(learner, test))
    if isinstance(test, Sinusoids):
        pictures.append(sinusoid_picture(learner, test, bounds(config.train.shot)[0]))
    if results:
        pictures.insert(
            0, Picture("At a glance", "95 % intervals over episodes.", plots.result_bars(results))
        )
    kind = "transductive" if learner.transductive else "inductive"
    trained_on = data[config.train.split]
    where = with_options(trained_on.name, getattr(trained_on, "options", {}))
    how = (
        f"meta-trained on {where} for {history.steps} steps in {history.seconds:.0f} s"
        if history.rows
        else "without meta-training"
    )
    subtitle = f"{learner.title} ({kind}), {how}, seed {config.seed}"
    write_report(
        folder / "report.html",
        f"{config.name}: {folder.absolute().name}",
        subtitle,
        results,
        pictures,
        config.model_dump(mode="json"),
    )


def _curve(history: History) -> Figure:
    rows = history.rows
    judged = [(r.step, r.validation, r.interval or 0.0) for r in rows if r.validation is not None]
    return plots.training_curve(
        [r.step for r in rows], [r.loss for r in rows], judged, history.metric, history.best_step
    )


def _episode_pictures(learner: MetaLearner, test: Split, config: RunConfig) -> list[Picture]:
    pictures: list[Picture] = []
    with suppress(EpisodeError):  # a head built for longer or wider tasks than can be shown
        spec = _shown_spec(config, test)
        for i in range(2):
            pictures.append(_episode_picture(learner, test, spec, i))
    return pictures


def _episode_picture(learner: MetaLearner, test: Split, spec: EpisodeSpec, i: int) -> Picture:
    episode = draw(test, spec, SHOWN_SEED, [i])
    names = class_names(test, spec, SHOWN_SEED, [i])[0]
    few = spec.shot != "any" and bounds(spec.shot)[1] <= plots.MAX_COLUMNS
    given = "all that" if few else f"of each class the first {plots.MAX_COLUMNS} images that"
    return Picture(
        f"An unseen task ({spec.describe()})",
        f"Left: {given} the learner was given. Right: what it was asked; a red frame is a wrong "
        "answer, with the number of the class that was answered.",
        plots.episode_picture(episode, predictions(learner, episode), names=names),
    )


def _shown_spec(config: RunConfig, test: Split) -> EpisodeSpec:
    """The tasks of the first evaluation, as far as `test` has classes and examples for them.

    Of a range its upper end; without evaluations the tasks of the training, 5-way at most.
    """
    asked, most = (config.evaluation[0], SHOWN_CLASSES) if config.evaluation else (config.train, 5)
    way = min(bounds(asked.way)[1], most, max(test.widths.values()))
    smallest = min(test.sizes)
    if asked.shot == "any":
        return EpisodeSpec(way, "any", 8)
    shot = max(1, min(bounds(asked.shot)[1], smallest - 1))
    return EpisodeSpec(way, shot, max(1, min(8, smallest - shot)))


def _embedding(learner: MetaLearner, test: Split) -> Picture:
    # Classes spread over the split, so that several scripts or groups appear.
    count = min(SHOWN_CLASSES, len(test.sizes))
    chosen = torch.linspace(0, len(test.sizes) - 1, count).long()
    part = Split(
        test.name,
        test.x,
        tuple(min(test.sizes[i], SHOWN_EXAMPLES) for i in chosen),
        tuple(test.classes[i] for i in chosen),
        test.prepare,
        starts=tuple(test.offsets[chosen].tolist()),
    )
    with torch.no_grad():
        features = embed_split(learner, part)
    images = part.examples(slice(None))
    return Picture(
        "The embedding of unseen classes",
        f"t-SNE of {count} classes of {test.name}, none of which was seen in meta-training. An "
        "image of each class stands above its middle, in a frame of its colour.",
        plots.embedding_map(features.flatten(1), part.labels(), images, part.classes),
    )


def sinusoid_picture(learner: MetaLearner, waves: Sinusoids, shot: int) -> Picture:
    """True functions, and what the learner makes of a few points before and after adapting."""
    spec = EpisodeSpec(shot=shot, query=1)
    episode = draw(waves, spec, SHOWN_SEED, range(3))
    grid = torch.linspace(*waves.domain, 200).reshape(1, -1, 1).expand(3, -1, -1)
    truth = waves.functions(episode_key(waves, spec, SHOWN_SEED), range(3))(grid)
    asked = Episode(episode.support, Examples(grid, truth), episode.key)
    fits = []
    head = learner.head
    if isinstance(head, InnerLoop):
        for steps, name in ((0, "before"), (1, "1 step"), (10, "10 steps")):
            with head.at_test(steps):
                fits.append((name, predictions(learner, asked)))
    else:
        fits.append((learner.title, predictions(learner, asked)))
    return Picture(
        "Unseen functions",
        f"{shot} points of each function are given (triangles).",
        plots.function_fits(asked, truth, fits),
    )
