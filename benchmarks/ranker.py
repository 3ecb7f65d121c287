"""Fit the ranker of `FewShotClassifier("auto")`, and judge it on tasks of unseen classes.

python benchmarks/ranker.py    -> src/kshot/shipped/ranker.json and benchmarks/results/ranker.json

Tasks of 2 to 10 classes with 1 to 10 examples, from made-up tables, characters (by the shipped
learner) and texts (MiniLM), and, where KSHOT_DATA has CIFAR-100, photographs (EfficientNet-Lite0).
The ranker is fitted on classes of meta-training (of meta-validation where the encoder has seen
these) and judged on those of meta-test, beside the candidate that is best on average in the former.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor

import kshot
from kshot.datasets import Split
from kshot.estimators.choice import (
    CANDIDATES,
    FILE,
    Ranker,
    build_candidate,
    descriptors,
    evidence,
    expanded,
    left_out_scores,
)
from kshot.estimators.model_file import read_model, shipped_learner
from kshot.evaluation.embedding import embed_split, evaluating
from kshot.evaluation.record import command, mean_interval, source_commit
from kshot.files import write_json
from kshot.learners import MetaLearner
from kshot.nn import pretrained_encoder
from kshot.philox import integers, key_of, words

Array = NDArray[np.float64]
RESULTS = Path("benchmarks/results/ranker.json")
SOURCE = Path("src/kshot") / FILE
WAYS, SHOTS, QUERY = (2, 10), (1, 10), 10

Task = tuple[Tensor, Tensor, Tensor, Tensor, int]
"""Support features and labels, query features and labels, way."""


def tasks(source: Any, count: int) -> Iterator[Task]:
    """Tasks of many ways and shots, few more often than many."""
    for i in range(count):
        draws = integers(words(key_of("ranker"), i, 2), 0, 999) / 1000
        way, shot = (
            int(low * ((high + 1) / low) ** u)
            for (low, high), u in zip((WAYS, SHOTS), draws, strict=True)
        )
        if isinstance(source, Split):
            way = min(way, len(source.sizes))
        e = kshot.draw(source, kshot.EpisodeSpec(way, shot, QUERY), 0, [i])
        x, q = e.support.x[0][e.support.real[0]], e.query.x[0][e.query.real[0]]
        y, truth = e.support.y[0][e.support.real[0]], e.query.y[0][e.query.real[0]]
        if not isinstance(source, Split):  # as FewShotClassifier(standardize=True) sees a table
            deviation = x.std(0, correction=0)
            kept = deviation > 0
            x, q = ((v - x.mean(0))[:, kept] / deviation[kept] for v in (x, q))
        yield x, y, q, truth, int(y.max()) + 1


def measured(source: Any, count: int, label: str) -> dict[str, Array]:
    """Descriptors, scores of left-out examples, and each candidate's accuracy, task by task."""
    rows: dict[str, list[Any]] = {"inputs": [], "shares": [], "counts": [], "accuracy": []}
    for x, y, q, truth, way in track(tasks(source, count), label, total=count):
        rows["inputs"].append(descriptors(x, y, way))
        shares, left_out = left_out_scores(x, y, way)
        rows["shares"].append(shares)
        rows["counts"].append(left_out)
        accuracy = []
        for name in CANDIDATES:
            learner = build_candidate(name, x.shape[1], way, len(y))
            with evaluating(learner):
                answer = learner.adapt(kshot.Examples(x[None], y[None], way=way))(q[None])
            assert isinstance(answer, Tensor)
            accuracy.append(float((answer[0].argmax(-1) == truth).double().mean()))
        rows["accuracy"].append(np.array(accuracy))
    return {key: np.array(values) for key, values in rows.items()}


def embedded(learner: MetaLearner, split: Any) -> Split:
    """The split as features."""
    with evaluating(learner):
        made: Split = split.with_x(embed_split(learner, split))
    return made


def domains() -> dict[str, Callable[[], tuple[Any, Any]]]:
    """What a ranker is fitted on, and what it is judged on."""

    def of_tables() -> tuple[Any, Any]:
        data = kshot.load("tables")
        return data["train"], data["test"]

    def of_characters() -> tuple[Any, Any]:
        learner = read_model(shipped_learner("characters"))[0].learner.requires_grad_(False)
        data = kshot.load("glyphs")
        return embedded(learner, data["val"]), embedded(learner, data["test"])

    def of_texts() -> tuple[Any, Any]:
        learner = kshot.RFS(pretrained_encoder("minilm"))
        data = kshot.load("wordnet")
        return embedded(learner, data["train"]), embedded(learner, data["test"])

    def of_photos() -> tuple[Any, Any]:
        learner = kshot.RFS(pretrained_encoder("efficientnet_lite0", size=96))
        data = kshot.load("cifar_fs")
        return embedded(learner, data["val"]), embedded(learner, data["test"])

    found = {"tables": of_tables, "characters": of_characters, "texts": of_texts}
    return found | ({"photos": of_photos} if os.environ.get("KSHOT_DATA") else {})


def fitted(inputs: Array, shares: Array, counts: Array, accuracy: Array) -> Ranker:
    """Two regressions, whose penalties are chosen by leaving out tasks of the fit."""
    centre, scale = inputs.mean(0), inputs.std(0).clip(1e-6)
    gains = accuracy - accuracy.mean(1, keepdims=True)
    penalties = 10.0 ** np.arange(-1, 5)
    z = expanded((inputs - centre) / scale)
    prior = RidgeCV(alphas=penalties, fit_intercept=False).fit(z, gains)
    several = counts > 0
    # Of tasks that the prior was not fitted to: its errors in sample are too small.
    alike = Ridge(alpha=prior.alpha_, fit_intercept=False)
    rest = gains - cross_val_predict(alike, z, gains, cv=KFold(10))
    terms = evidence(shares, counts)[several].reshape(-1, 2)
    trust = RidgeCV(alphas=penalties, fit_intercept=False).fit(terms, rest[several].ravel())
    names = list(CANDIDATES)
    average = names[int(accuracy.mean(0).argmax())]
    return Ranker(names, centre, scale, prior.coef_.T, trust.coef_, average)


def judged(accuracy: Array, gains: Array, average: str) -> dict[str, Any]:
    """The choices beside the best on average, paired, and beside the best for each task."""
    chosen = accuracy[np.arange(len(accuracy)), gains.argmax(1)]
    always = accuracy[:, list(CANDIDATES).index(average)]
    gain, interval = mean_interval(chosen - always)
    return {
        "tasks": len(accuracy),
        "chosen": float(chosen.mean()),
        "best_on_average": float(always.mean()),
        "gain": gain,
        "interval": interval,
        "best_for_each": float(accuracy.max(1).mean()),
    }


def joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    """The tasks of several domains."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def main(
    fit: Annotated[int, typer.Option(help="Tasks of each domain to fit on.")] = 400,
    test: Annotated[int, typer.Option(help="Tasks of each domain to judge on.")] = 400,
) -> None:
    """Measure, fit, judge, and write both files."""
    torch.manual_seed(0)
    fit_on, judge_on = {}, {}
    for name, load in domains().items():
        source, target = load()
        fit_on[name] = measured(source, fit, f"{name}, fit")
        judge_on[name] = measured(target, test, f"{name}, test")
    ranker = fitted(**joined(list(fit_on.values())))
    write_json(SOURCE, ranker.as_dict())
    record: dict[str, Any] = {"prior": {}, "refined": {}}
    for name, part in {**judge_on, "all": joined(list(judge_on.values()))}.items():
        accuracy = part.pop("accuracy")
        expected = {"prior": ranker.prior(part["inputs"]), "refined": ranker.refined(**part)}
        for kind, gains in expected.items():
            record[kind][name] = judged(accuracy, gains, ranker.average)
            print(kind, name, record[kind][name])
    about = {"always": ranker.average, "trust": ranker.trust.tolist(), "fit": fit, "test": test}
    write_json(RESULTS, {**record, **about, "command": command(), "commit": source_commit()})


if __name__ == "__main__":
    typer.run(main)
