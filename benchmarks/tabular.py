"""SetMetric beside scikit-learn's classifiers, on the tables that scikit-learn brings.

python benchmarks/tabular.py              -> benchmarks/results/tabular.json

SetMetric is as it comes with kshot, meta-trained on made-up tables alone. On each real table, with
all of its classes and 1 to 20 examples of each, every method is fitted to the same support, whose
columns are brought to mean 0 and deviation 1 by the support itself, and asked the same 15 queries
per class.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track
from sklearn import datasets
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import kshot
from kshot.evaluation.record import command, mean_interval, source_commit
from kshot.files import write_json

TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
SHOTS = (1, 2, 5, 10, 20)
RESULTS = Path(__file__).parent / "results" / "tabular.json"


def methods(shot: int) -> dict[str, ClassifierMixin]:
    """By their names in the table."""
    return {
        "SetMetric": kshot.FewShotClassifier("set_metric"),
        "logistic regression": LogisticRegression(max_iter=1000),
        "nearest centroid": NearestCentroid(),
        "k nearest neighbours": KNeighborsClassifier(min(3, shot)),
    }


def scored(name: str, shot: int, episodes: int) -> tuple[dict[str, Any], str]:
    """Accuracy of each method with its interval, and SetMetric's gain over it, paired."""
    x, y = TABLES[name](return_X_y=True)
    split = kshot.Dataset.from_arrays(x, y, name=name)["test"]
    assert isinstance(split, kshot.datasets.Split)
    spec = kshot.EpisodeSpec(len(split.sizes), shot, 15)
    frozen = kshot.FrozenEpisodes(split, spec, episodes)
    right: dict[str, list[float]] = {}
    for i in track(range(episodes), f"{name}, {shot} shots", transient=True):
        e = kshot.draw(split, spec, 0, [i])
        support, query = (np.asarray(part.x[0], np.float64) for part in (e.support, e.query))
        deviation = support.std(0)
        scale = np.where(deviation > 0, deviation, 1)
        support, query = ((v - support.mean(0)) / scale for v in (support, query))
        for method, model in methods(shot).items():
            with warnings.catch_warnings():  # of columns that do not vary
                warnings.simplefilter("ignore")
                answers = model.fit(support, e.support.y[0].numpy()).predict(query)
            right.setdefault(method, []).append(float((answers == e.query.y[0].numpy()).mean()))
    own = np.array(next(iter(right.values())))
    row: dict[str, Any] = {}
    for method, values in right.items():
        mean, interval = mean_interval(np.array(values))
        row[method] = {"mean": mean, "interval": interval}
        if method != next(iter(right)):
            gain, half = mean_interval(own - np.array(values))
            row[method] |= {"gain": gain, "gain_interval": half}
    return row, frozen.hash


def main(
    episodes: Annotated[int, typer.Option(help="Of each table and shot.")] = 300,
) -> None:
    """Score all tables and write the record."""
    rows = []
    for name in TABLES:
        for shot in SHOTS:
            found, episode_hash = scored(name, shot, episodes)
            rows.append({"table": name, "shot": shot, "episode_hash": episode_hash, **found})
            print(name, shot, {k: round(100 * v["mean"], 1) for k, v in found.items()})
    write_json(
        RESULTS,
        {
            "rows": rows,
            "episodes": episodes,
            "seed": 0,
            "command": command(),
            "commit": source_commit(),
        },
    )


if __name__ == "__main__":
    typer.run(main)
