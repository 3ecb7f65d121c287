"""`kshot embed`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch import nn

from kshot.cli.evaluate import check_writable, chosen_data, progress_bar
from kshot.datasets import Split
from kshot.datasets.features import save_features
from kshot.datasets.sources import Source
from kshot.errors import ConfigError, KshotError, unknown
from kshot.evaluation import embedded
from kshot.evaluation.embedding import evaluating
from kshot.training import load_run
from kshot.training.build import pick_device
from kshot.training.run import Run
from kshot.training.seeds import read_plan


def embed(
    folder: Path,
    dataset: str | None,
    settings: Sequence[str],
    split: str | None,
    out: Path,
    device: str,
) -> None:
    """Write every image of the splits, embedded by the run's encoder."""
    console = Console(highlight=False)
    check_writable(out)
    if plan := read_plan(folder):
        one = folder / f"seed-{plan[0].seed}"
        raise ConfigError(f"{folder} holds runs from several seeds: embed by one, such as {one}.")
    run = load_run(folder)
    name = type(run.learner).__name__
    if isinstance(run.learner.encoder, nn.Identity):
        raise ConfigError(
            f"{folder} has no encoder of its own: {name} keeps no embedding apart from its "
            "head. Embed with a run of another learner, such as protonet."
        )
    data = chosen_data(run, dataset, settings)
    names = list(data.splits) if split is None else [split]
    if names[0] not in data.splits:
        raise unknown(f"split of {data.name}", names[0], data.splits)
    run.learner.to(pick_device(device))
    with progress_bar() as bar:
        made = {n: _embed(run, data[n]) for n in bar.track(names, description="embedding")}
    save_features(out, data, made, _describe(run))
    for part in made.values():
        console.print(f"{part.name}: {len(part.x):,} examples of {part.x.shape[1]} features")
    console.print(f"Features: {out}\nUse them: --dataset features --set path={out}")


def _embed(run: Run, source: Source) -> Split:
    if not isinstance(source, Split):
        raise ConfigError(
            f"{source.name} is not one set of images: name a data set with classes by --dataset."
        )
    try:
        with evaluating(run.learner):
            features = embedded(run.learner, source)[1]
    except (KshotError, RuntimeError) as error:
        raise ConfigError(
            f"{run.folder} cannot embed {source.name}: {str(error).splitlines()[0]}"
        ) from error
    if features is source or not isinstance(features, Split):
        raise ConfigError(
            f"{run.folder} embeds an image by the statistics of a whole task, so that none has an "
            "embedding of its own: train with learner.normalization=joint or frozen."
        )
    return features


def _describe(run: Run) -> str:
    config, learner = run.config, run.learner
    return (
        f"{config.encoder.name} {json.dumps(config.encoder.options)} of {type(learner).__name__}, "
        f"{config.name}, seed {config.seed}, {run.meta_steps} meta-steps, "
        f"normalisation {learner.normalization}"
    )
