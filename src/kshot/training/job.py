"""The whole of `kshot train`: data, learner, meta-training, evaluation beside baselines, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress

from kshot.datasets import Dataset, Split, load
from kshot.datasets.base import Source
from kshot.engine.processes import ALONE, Processes
from kshot.episodes import (
    FrozenEpisodes,
    augment,
    color_jitter,
    draw,
    random_affine,
    random_crop,
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
from kshot.training.build import (
    load_data,
    make_learner,
    seed_weights,
    source_of,
    task_shape,
)
from kshot.training.config import EvaluationConfig, RunConfig
from kshot.training.pictures import run_report
from kshot.training.run import RunFolder
from kshot.training.state import History, Row
from kshot.training.train import meta_train

RAW_BASELINE = "1-NN, raw inputs"

AUGMENTATIONS: dict[str, Augmentation] = {
    "affine": random_affine(),
    "crop": random_crop(),
    "flip": random_flip(),
    "jitter": color_jitter(),
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
    resume: bool = False,
    processes: Callable[[], AbstractContextManager[Processes]] = lambda: nullcontext(ALONE),
    rank: int = 0,
    progress: bool = True,
    ready: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train, evaluate, and write the run folder.

    Args:
        config: all settings.
        folder: the new run folder, or the one to go on with.
        device: where to compute.
        resume: go on with the run in `folder`.
        processes: meets those that share each meta-batch; called when all has been checked.
        rank: of this process; only the first writes, evaluates and talks.
        progress: show bars.
        ready: called when everything has been checked and the training begins.
        tell: is given a line at each stage.

    Raises:
        KshotError: for impossible settings, before anything is written; for a run that diverges,
            whose last good weights stay.
    """
    data = load_data(config)
    shape = task_shape(config, data)
    learner = make_learner(config, shape).to(device)
    validation = _validation(config, data)
    targets = [(e, _target(e, config, data)) for e in config.evaluation]
    if rank > 0:
        with processes() as group:
            history = _train(config, data, learner, validation, RunFolder(folder), group)
        return Outcome(folder, history, [])
    _rehearse(config, data, learner, validation, targets)
    out = RunFolder.reopen(folder) if resume else RunFolder.create(folder, config, shape)
    ready()
    try:
        with processes() as group:
            history = _train(config, data, learner, validation, out, group, progress)
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
    if history.stopped == "interrupted":
        tell(f"go on with: kshot train --resume {folder}")
        return Outcome(folder, history, [])
    results = _evaluate_all(config, shape, learner, targets, history.best_step, progress)
    tell("drawing the report")
    run_report(folder, config, learner, data, history, results)
    write_json(folder / "results.json", [r.as_dict() for r in results])
    out.checkpoint.unlink(missing_ok=True)
    return Outcome(folder, history, results)


def _validation(config: RunConfig, data: Dataset) -> FrozenEpisodes | None:
    if "val" not in data.splits or config.train.split != "train":
        return None
    return FrozenEpisodes(data["val"], config.validation.spec, config.validation.episodes)


def _target(evaluation: EvaluationConfig, config: RunConfig, data: Dataset) -> Source:
    """The source of an evaluation, checked before any training."""
    part = evaluation.dataset
    same = part is None or (part.name == data.name and not part.options)
    source = (data if same or part is None else load(part.name, **part.options))[evaluation.split]
    evaluation.spec.check(source)
    return source


def _rehearse(
    config: RunConfig,
    data: Dataset,
    learner: MetaLearner,
    validation: FrozenEpisodes | None,
    targets: list[tuple[EvaluationConfig, Source]],
) -> None:
    """One episode of each kind, so that what cannot work fails now and not after the training."""
    t = config.train
    draws = [(source_of(data, t.split), t.spec)]
    draws += [(validation.source, validation.spec)] if validation else []
    draws += [(source, e.spec) for e, source in targets]
    if any(e.test_steps for e, _ in targets) and not isinstance(learner.head, InnerLoop):
        raise ConfigError(
            f"evaluation.test_steps counts inner steps, which {type(learner).__name__} has not: "
            "leave it out."
        )
    for number, (source, spec) in enumerate(draws):
        episode = draw(source, spec, config.seed, [0])
        try:
            if number == 0:
                episode = augment(episode, [AUGMENTATIONS[name] for name in t.augment])
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
    processes: Processes,
    progress: bool = False,
) -> History:
    first = processes.rank == 0
    with _tensorboard(out.path) if first else nullcontext(lambda row: None) as log:

        def on_row(row: Row, improved: bool) -> None:
            out.log(row)
            log(row)
            if improved:
                out.save(learner, row.step)

        return meta_train(
            learner,
            source_of(data, config.train.split),
            **config.train.model_dump(exclude={"augment", "split"}),
            augmentations=[AUGMENTATIONS[name] for name in config.train.augment],
            validation=validation,
            validate_every=config.validation.every,
            patience=config.validation.patience,
            seed=config.seed,
            checkpoint=out.checkpoint,
            processes=processes,
            on_row=on_row if first else None,
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
    targets: list[tuple[EvaluationConfig, Source]],
    meta_steps: int,
    progress: bool,
) -> list[Result]:
    methods: list[tuple[str, MetaLearner, int]] = [(type(learner).__name__, learner, meta_steps)]
    methods += [
        (name, m.to(next(learner.parameters()).device), 0) for name, m in _baselines(config, shape)
    ]
    # Each split is embedded once for each method, whatever the number of evaluations on it.
    seen: dict[tuple[str, str], tuple[MetaLearner, Source]] = {}
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
    e: EvaluationConfig, source: Source, name: str, learner: MetaLearner, steps: int
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
