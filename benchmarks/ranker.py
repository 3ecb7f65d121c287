"""Fit the ranker of `FewShotClassifier("auto")`, and judge it on tasks of unseen classes.

python benchmarks/ranker.py    -> src/kshot/shipped/ranker.json and benchmarks/results/ranker.json

Tasks of 2 to 10 classes with 1 to 10 examples: made-up tables, letters, texts (by MiniLM), and,
where KSHOT_DATA has CIFAR-100, photographs; images as the shipped learner and EfficientNet-Lite0
see them.
The ranker is fitted on classes of meta-training (of meta-validation where an encoder has seen
these) and judged on those of meta-test, beside the encoder and the method that are together best on
average over the former tasks of that kind.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
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
    FILE,
    HEADS,
    Ranker,
    descriptors,
    evidence,
    expanded,
    head_for,
    left_out_scores,
)
from kshot.estimators.forms import load
from kshot.estimators.inputs import Inputs
from kshot.estimators.model_file import CHARACTERS, read_model, shipped_learner
from kshot.estimators.ready import Ready, of_names
from kshot.evaluation.embedding import embed_split, evaluating
from kshot.evaluation.record import command, mean_interval, source_commit
from kshot.files import write_json
from kshot.learners import TaskShape
from kshot.nn.pretrained import LITE0
from kshot.philox import integers, key_of, words
from kshot.types import unlabelled

Array = NDArray[np.float64]
RESULTS = Path("benchmarks/results/ranker.json")
SOURCE = Path("src/kshot") / FILE
KEPT = Path(".cache/ranker.npz")
WAYS, SHOTS, QUERY = (2, 10), (1, 10), 10
CLASSES, EACH = 100, 40
"""Classes of images and images of a class, at most: a large encoder takes its time."""

KINDS = {"tables": "vectors", "letters": "images", "photographs": "images", "texts": "texts"}
Views = Mapping[str, Any]
"""The same tasks, as each encoder sees them."""


def specs(source: Any, count: int) -> Iterator[kshot.EpisodeSpec]:
    """Of tasks of many ways and shots, few more often than many."""
    for i in range(count):
        draws = integers(words(key_of("ranker"), i, 2), 0, 999) / 1000
        way, shot = (
            int(low * ((high + 1) / low) ** u)
            for (low, high), u in zip((WAYS, SHOTS), draws, strict=True)
        )
        if isinstance(source, Split):
            way = min(way, len(source.sizes))
        yield kshot.EpisodeSpec(way, shot, QUERY)


def task(source: Any, spec: kshot.EpisodeSpec, index: int) -> tuple[Tensor, ...]:
    """Support features and labels, query features and labels."""
    e = kshot.draw(source, spec, 0, [index])
    x, y = (v[0][e.support.real[0]] for v in (e.support.x, e.support.y))
    q, truth = (v[0][e.query.real[0]] for v in (e.query.x, e.query.y))
    if not isinstance(source, Split):  # as FewShotClassifier(standardize=True) sees a table
        deviation = x.std(0, correction=0)
        kept = deviation > 0
        x, q = ((v - x.mean(0))[:, kept] / deviation[kept] for v in (x, q))
    return x, y, q, truth


def measured(views: Views, count: int, label: str) -> dict[str, Array]:
    """Descriptors, scores of left-out examples, and accuracies, `(tasks, views, ...)`."""
    rows: dict[str, list[Any]] = {"inputs": [], "shares": [], "counts": [], "accuracy": []}
    first = next(iter(views.values()))
    for i, spec in enumerate(track(specs(first, count), label, total=count)):
        for source in views.values():
            x, y, q, truth = task(source, spec, i)
            way = int(y.max()) + 1
            rows["inputs"].append(descriptors(x, y, way))
            shares, left_out = left_out_scores(x, y, way)
            rows["shares"].append(shares)
            rows["counts"].append(left_out)
            accuracy = []
            for name in HEADS:
                learner = head_for(name, x.shape[1], way, len(y))
                with evaluating(learner):
                    answer = learner.adapt(kshot.Examples(x[None], y[None], way=way))(q[None])
                assert isinstance(answer, Tensor)
                accuracy.append(float((answer[0].argmax(-1) == truth).double().mean()))
            rows["accuracy"].append(np.array(accuracy))
    shape = (count, len(views))
    return {k: np.array(v, float).reshape(*shape, *np.shape(v)[1:]) for k, v in rows.items()}


def seen(ready: Ready, split: Split) -> Split:
    """A split of images as `kshot fit` gives them to an encoder."""
    count = len(split.sizes)
    part = split.take(np.linspace(0, count - 1, min(count, CLASSES)).astype(int).tolist())
    sizes = [min(size, EACH) for size in part.sizes]
    rows = [start + torch.arange(n) for start, n in zip(part.offsets, sizes, strict=True)]
    images = part.x[torch.cat(rows)].movedim(1, -1).squeeze(-1).numpy()
    features = []
    with warnings.catch_warnings(), evaluating(ready.learner):
        warnings.filterwarnings("ignore", "these look like photographs")
        for some in np.array_split(images, len(images) // 64):
            x = load(ready.form, Inputs("images", list(some)))
            features.append(ready.learner.embed(unlabelled(x[None]))[0][0])
    return Split(part.name, torch.cat(features), tuple(sizes), part.classes)


def domains() -> Iterator[tuple[str, Views, Views]]:
    """Name, what a ranker is fitted on, and what it is judged on."""
    tables = kshot.load("tables")
    yield "tables", {"": tables["train"]}, {"": tables["test"]}
    texts = kshot.load("wordnet")
    minilm = of_names("simpleshot", "minilm", Inputs("texts", ["a"]), TaskShape((), 2, 2)).learner
    with evaluating(minilm):
        yield (
            "texts",
            *(
                {"minilm": s.with_x(embed_split(minilm, s))}
                for s in (texts["train"], texts["test"])
            ),
        )
    shape = TaskShape((), 2, 2)
    encoders = {
        CHARACTERS: read_model(shipped_learner(CHARACTERS))[0],
        LITE0: of_names("simpleshot", LITE0, Inputs("images", []), shape),
    }
    images = {"letters": "glyphs"}
    if os.environ.get("KSHOT_DATA"):
        images["photographs"] = "cifar_fs"
    for name, dataset in images.items():
        data = kshot.load(dataset)
        yield (
            name,
            *({n: seen(r, data[part]) for n, r in encoders.items()} for part in ("val", "test")),
        )


def fitted(parts: Mapping[str, dict[str, Array]]) -> Ranker:
    """Three regressions, whose penalties are chosen by leaving out tasks of the fit."""
    inputs, shares, counts, accuracy = (
        np.concatenate([part[key].reshape(-1, *part[key].shape[2:]) for part in parts.values()])
        for key in ("inputs", "shares", "counts", "accuracy")
    )
    centre, scale = inputs.mean(0), inputs.std(0).clip(1e-6)
    z = expanded((inputs - centre) / scale)
    mean = accuracy.mean(1)
    penalties = 10.0 ** np.arange(-1, 5)
    level, gains = (
        RidgeCV(alphas=penalties, fit_intercept=False).fit(z, target)
        for target in (mean, accuracy - mean[:, None])
    )
    # Priors of tasks that they were not fitted to: their errors in sample are too small.
    alike = [Ridge(alpha=r.alpha_, fit_intercept=False) for r in (level, gains)]
    folds = KFold(10)
    prior = cross_val_predict(alike[0], z, mean, cv=folds)[:, None] + cross_val_predict(
        alike[1], z, accuracy - mean[:, None], cv=folds
    )
    several = counts > 0
    terms = evidence(prior, shares, counts)[0][several].reshape(-1, 2)
    rest = (accuracy - prior)[several].ravel()
    trust = RidgeCV(alphas=penalties, fit_intercept=False).fit(terms, rest)
    return Ranker(list(HEADS), centre, scale, level.coef_, gains.coef_.T, trust.coef_)


def judged(part: dict[str, Array], ranker: Ranker, fixed: int) -> dict[str, dict[str, Any]]:
    """By the prior alone and by all: the choices beside the fixed one, paired, and the best."""
    tasks = len(part["counts"])
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in part.items() if k != "accuracy"}
    accuracy = part["accuracy"].reshape(tasks, -1)
    always = accuracy[:, fixed]
    found = {}
    for kind, expected in (
        ("prior", ranker.prior(flat["inputs"])),
        ("refined", ranker.refined(**flat)),
    ):
        chosen = accuracy[np.arange(tasks), expected.reshape(tasks, -1).argmax(1)]
        gain, interval = mean_interval(chosen - always)
        found[kind] = {
            "tasks": tasks,
            "chosen": float(chosen.mean()),
            "always": float(always.mean()),
            "gain": gain,
            "interval": interval,
            "best_for_each": float(accuracy.max(1).mean()),
            "gains": (chosen - always).tolist(),
        }
    return found


def measurements(fit: int, test: int, kept: Path) -> dict[str, dict[str, dict[str, Array]]]:
    """Of the tasks to fit on and to judge on, by domain; measured where they are not kept yet."""
    if kept.exists():
        arrays = np.load(kept)
    else:
        arrays = {}
        for name, source, target in domains():
            for part, views, count in (("fit", source, fit), ("test", target, test)):
                for key, values in measured(views, count, f"{name}, {part}").items():
                    arrays[f"{part}/{name}/{key}"] = values
            arrays[f"encoders/{name}/names"] = np.array(list(source))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **arrays)
    found: dict[str, dict[str, dict[str, Array]]] = {}
    for path in arrays:
        part, name, key = path.split("/")
        found.setdefault(part, {}).setdefault(name, {})[key] = arrays[path]
    return found


def main(
    fit: Annotated[int, typer.Option(help="Tasks of each domain to fit on.")] = 300,
    test: Annotated[int, typer.Option(help="Tasks of each domain to judge on.")] = 400,
    kept: Annotated[Path, typer.Option(help="Measurements, which take an hour.")] = KEPT,
) -> None:
    """Measure, fit, judge, and write both files."""
    commit = source_commit()
    torch.manual_seed(0)
    found = measurements(fit, test, kept)
    ranker = fitted(found["fit"])
    write_json(SOURCE, ranker.as_dict())
    record: dict[str, Any] = {"prior": {}, "refined": {}}
    always = {}
    for name, part in found["test"].items():
        alike = [p for n, p in found["fit"].items() if KINDS[n] == KINDS[name]]
        mean = np.concatenate([p["accuracy"].reshape(fit, -1) for p in alike]).mean(0)
        fixed = int(mean.argmax())
        encoder, head = divmod(fixed, len(HEADS))
        always[name] = [str(found["encoders"][name]["names"][encoder]), list(HEADS)[head]]
        for kind, judgement in judged(part, ranker, fixed).items():
            record[kind][name] = judgement
    for kind in ("prior", "refined"):
        gains = np.concatenate([one.pop("gains") for one in record[kind].values()])
        gain, interval = mean_interval(gains)
        record[kind]["all"] = {"tasks": len(gains), "gain": gain, "interval": interval}
        print(kind, record[kind])
    about = {"always": always, "trust": ranker.trust.tolist(), "fit": fit, "test": test}
    write_json(RESULTS, {**record, **about, "command": command(), "commit": commit})


if __name__ == "__main__":
    typer.run(main)
