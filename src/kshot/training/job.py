"""The whole of `kshot train`: data, learner, meta-training, evaluation beside baselines, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress

from kshot.datasets import Dataset, Split, TaskFamily, load
from kshot.episodes import (
    EpisodeSpec,
    FrozenEpisodes,
    augment,
    draw,
    random_affine,
    random_flip,
)
from kshot.episodes.augment import Augmentation
from kshot.errors import ConfigError
from kshot.evaluation import Result, embedded, evaluate, predictions
from kshot.files import write_json
from kshot.learners import MetaLearner, TaskShape
from kshot.learners.inner_loop import InnerLoop
from kshot.learners.nearest_neighbour import NearestNeighbour
from kshot.learners.protonet import ProtoNet
from kshot.nn import build_encoder
from kshot.training.build import make_learner, seed_weights, source_of, task_shape
from kshot.training.config import EvaluationConfig, RunConfig
from kshot.training.pictures import run_report
from kshot.training.run import RunFolder
from kshot.training.train import History, Row, meta_train

RAW_BASELINE = "1-NN, raw inputs"

AUGMENTATIONS: dict[str, list[Augmentation]] = {
    "none": [],
    "affine": [random_affine()],
    "flip": [random_flip()],
}


@dataclass(frozen=True)
class Outcome:
    """What a finished run gives back.

    Attributes:
        folder: where everything was written.
        history: how the training went.
        results: for each evaluation the trained learner, then the baselines.
    """

    folder: Path
    history: History
    results: list[Result]


def run(
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    progress: bool = True,
    ready: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train, evaluate, and write the run folder.

    Args:
        config: all settings.
        folder: the new run folder.
        device: where to compute.
        progress: show bars.
        ready: called when everything has been checked and the training begins.
        tell: is given a line at each stage.

    Raises:
        KshotError: for impossible settings, before anything is written; for a run that diverges,
            whose last good weights stay.
    """
    data = load(config.dataset.name, **config.dataset.options)
    shape = task_shape(config, data)
    learner = make_learner(config, shape).to(device)
    validation = _validation(config, data) if config.train.split == "train" else None
    targets = [(e, _target(e, data)) for e in config.evaluation]
    _rehearse(config, data, learner, validation, targets)
    out = RunFolder(folder, config, shape)
    ready()
    try:
        history = _train(config, data, learner, validation, out, progress)
    finally:
        out.discard_if_empty()
    if history.steps == 0:
        tell("stopped before the first step; nothing was written")
        return Outcome(folder, history, [])
    reason = f" ({history.stopped})" if history.stopped else ""
    tell(
        f"{history.steps} steps in {history.seconds:.0f} s{reason}; "
        f"kept the weights of step {history.best_step}"
    )
    results = _evaluate_all(config, shape, learner, targets, history.best_step, progress)
    write_json(folder / "results.json", [r.as_dict() for r in results])
    tell("drawing the report")
    run_report(folder, config, learner, data, history, results)
    return Outcome(folder, history, results)


def _validation(config: RunConfig, data: Dataset) -> FrozenEpisodes | None:
    if "val" not in data.splits:
        return None
    v = config.validation
    return FrozenEpisodes(data["val"], EpisodeSpec(v.way, v.shot, v.query), v.episodes)


def _target(evaluation: EvaluationConfig, data: Dataset) -> Split | TaskFamily:
    """The source of an evaluation, checked before any training."""
    same = evaluation.dataset is None or evaluation.dataset == data.name
    source = (data if same else load(str(evaluation.dataset)))[evaluation.split]
    EpisodeSpec(evaluation.way, evaluation.shot, evaluation.query).check(source)
    return source


def _rehearse(
    config: RunConfig,
    data: Dataset,
    learner: MetaLearner,
    validation: FrozenEpisodes | None,
    targets: list[tuple[EvaluationConfig, Split | TaskFamily]],
) -> None:
    """One episode of each kind, so that what cannot work fails now and not after the training."""
    t = config.train
    draws = [(source_of(data, t.split), EpisodeSpec(t.way, t.shot, t.query))]
    draws += [(validation.source, validation.spec)] if validation else []
    draws += [(source, EpisodeSpec(e.way, e.shot, e.query)) for e, source in targets]
    if any(e.test_steps for e, _ in targets) and not isinstance(learner.head, InnerLoop):
        raise ConfigError(
            f"evaluation.test_steps counts inner steps, which {type(learner).__name__} has not: "
            "leave it out."
        )
    for number, (source, spec) in enumerate(draws):
        episode = draw(source, spec, config.seed, [0])
        try:
            if number == 0:
                episode = augment(episode, AUGMENTATIONS[t.augment])
                learner.check(episode.support)
            else:
                predictions(learner, episode)
        except RuntimeError as error:
            raise ConfigError(
                f"{type(learner).__name__} cannot take {spec.describe()} tasks of {source.name}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def _train(
    config: RunConfig,
    data: Dataset,
    learner: MetaLearner,
    validation: FrozenEpisodes | None,
    out: RunFolder,
    progress: bool,
) -> History:
    with _tensorboard(out.path) as log:

        def on_row(row: Row, improved: bool) -> None:
            out.log(row)
            log(row)
            if improved:
                out.save(learner, row.step)

        return meta_train(
            learner,
            source_of(data, config.train.split),
            **config.train.model_dump(exclude={"augment", "split"}),
            augmentations=AUGMENTATIONS[config.train.augment],
            validation=validation,
            validate_every=config.validation.every,
            patience=config.validation.patience,
            seed=config.seed,
            on_row=on_row,
            progress=progress,
        )


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[Row], None]]:
    """Logs rows to TensorBoard where it is installed, else nowhere."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(row: Row) -> None:
        for name in ("loss", "lr", "validation"):
            if (value := getattr(row, name)) is not None:
                writer.add_scalar(name, value, row.step)

    try:
        yield log
    finally:
        writer.close()


def _evaluate_all(
    config: RunConfig,
    shape: TaskShape,
    learner: MetaLearner,
    targets: list[tuple[EvaluationConfig, Split | TaskFamily]],
    meta_steps: int,
    progress: bool,
) -> list[Result]:
    methods: list[tuple[str, MetaLearner, int]] = [(type(learner).__name__, learner, meta_steps)]
    methods += [
        (name, m.to(next(learner.parameters()).device), 0) for name, m in _baselines(config, shape)
    ]
    # Each split is embedded once for each method, whatever the number of evaluations on it.
    seen: dict[tuple[str, str], tuple[MetaLearner, Split | TaskFamily]] = {}
    results = []
    jobs = [(e, source, *method) for e, source in targets for method in methods]
    with Progress(disable=not progress, transient=True) as bar:
        for e, source, name, method, steps in bar.track(jobs, description="evaluating"):
            key = (name, source.fingerprint)
            if key not in seen:
                seen[key] = (
                    embedded(method, source) if isinstance(source, Split) else (method, source)
                )
            method, features = seen[key]
            results += _evaluate(e, features, name, method, steps)
    return results


def _evaluate(
    e: EvaluationConfig, source: Split | TaskFamily, name: str, learner: MetaLearner, steps: int
) -> list[Result]:
    arguments = e.model_dump(include={"way", "shot", "query", "episodes", "seed"})
    head = learner.head
    if not (isinstance(head, InnerLoop) and e.test_steps):
        return [evaluate(learner, source, **arguments, name=name, meta_steps=steps)]
    results = []
    for count in e.test_steps:
        label = f"{name}, {count} step{'s' if count != 1 else ''}"
        with head.at_test(count):
            results.append(evaluate(learner, source, **arguments, name=label, meta_steps=steps))
    return results


def _baselines(config: RunConfig, shape: TaskShape) -> list[tuple[str, MetaLearner]]:
    """What every table carries: the same without meta-training, and no learning at all."""
    if shape.way == 0:
        return [("untrained", make_learner(config, shape))]
    baselines: list[tuple[str, MetaLearner]] = [(RAW_BASELINE, NearestNeighbour())]
    if config.encoder.name != "none":
        seed_weights(config.seed)
        encoder = build_encoder(config.encoder.name, shape.x_shape, config.encoder.options)
        baselines.append(("untrained encoder", ProtoNet(encoder)))
    return baselines
