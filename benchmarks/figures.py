"""Draw the pictures of README and docs from runs: python benchmarks/figures.py RUN ..."""

from __future__ import annotations

import sys
from pathlib import Path

from kshot.datasets import Split, load
from kshot.datasets.sinusoid import Sinusoids
from kshot.episodes import EpisodeSpec, draw
from kshot.evaluation import predictions
from kshot.evaluation.plots import episode_picture
from kshot.evaluation.report import save_figure
from kshot.training import load_run
from kshot.training.pictures import sinusoid_picture

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main(runs: list[str]) -> None:
    """One picture for each run, by its data set."""
    for folder in runs:
        run = load_run(folder)
        test = load(run.config.dataset.name)["test"]
        if isinstance(test, Sinusoids):
            save_figure(sinusoid_picture(run.learner, test, 10).figure, IMAGES / "sinusoid.png")
        elif isinstance(test, Split):
            episode = draw(test, EpisodeSpec(5, 1, 10), 1, [0])
            title = f"an unseen task of {test.name}"
            figure = episode_picture(episode, predictions(run.learner, episode), title)
            save_figure(figure, IMAGES / "episode.png")


if __name__ == "__main__":
    main(sys.argv[1:])
