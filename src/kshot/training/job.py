"""The whole of `kshot train`: data, learner, meta-training, evaluation beside baselines, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kshot.datasets import Dataset, Mixture, Split, load
from kshot.datasets.sources import Source
from kshot.engine.processes import ALONE, Processes
from kshot.episodes import EpisodeSpec, FrozenEpisodes, augment, draw
from kshot.episodes.augment import AUGMENTATIONS
from kshot.errors import ConfigError
from kshot.evaluation import Result, predictions
from kshot.evaluation.embedding import embed_split, evaluating
from kshot.interrupt import interrupted_by_sigterm
from kshot.learners import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.training.build import check_episodes, load_data, make_learner, source_of, task_shape
from kshot.training.config import EvaluationConfig, RunConfig
from kshot.training.lineage import lineage
from kshot.training.pictures import run_report
from kshot.training.run import RunFolder
from kshot.training.scores import Target, evaluate_all, stated
from kshot.training.state import History, Row
from kshot.training.train import meta_train

Meeting = Callable[[Path], AbstractContextManager[Processes]]
"""Meets the processes that share the training of the run in a folder."""


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


@interrupted_by_sigterm()
def run(
    config: RunConfig,
    folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    processes: Meeting = lambda folder: nullcontext(ALONE),
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
        rank: of this process; only the first writes and talks.
        progress: show bars.
        ready: called when everything has been checked and the training begins.
        tell: is given a line at each stage.

    Raises:
        KshotError: for impossible settings, before anything is written; for a run that diverges,
            whose last good weights stay.
    """
    if config.train.split != "train" and config.validation.patience is not None:
        raise ConfigError(
            f"validation.patience has no effect where train.split is {config.train.split!r}, which "
            "leaves nothing to validate on: leave it out."
        )
    data = load_data(config)
    targets = [(e, _target(e, config, data)) for e in config.evaluation]
    check_episodes(config, data, targets)
    shape = task_shape(config, data)
    learner = make_learner(config, shape).to(device)
    _check_steps(config, learner)
    validation = _validation(config, data)
    if rank > 0:
        with processes(folder) as group:
            history = _train(config, data, learner, validation, RunFolder(folder), group)
            begun = history.steps or not config.train.steps
            if begun and history.stopped != "interrupted":
                evaluate_all(config, shape, learner, targets, history.best_step, False, group)
        return Outcome(folder, history, [])
    _rehearse(config, data, learner, validation, targets)
    behind = lineage(config)
    for warning in dict.fromkeys(w for _, tested in targets for w in behind.warnings(tested)):
        tell(f"warning: {warning}")
    with RunFolder.reopen(folder) if resume else RunFolder.create(folder, config, shape) as out:
        ready()
        with processes(folder) as group:
            history = _train(config, data, learner, validation, out, group, progress)
            if history.steps == 0 < config.train.steps:
                rest = "" if out.started else "; nothing was written"
                tell(f"stopped before the first step{rest}")
                return Outcome(folder, history, [])
            out.save(learner, history.best_step)
            reason = f" ({history.stopped})" if history.stopped else ""
            if history.steps:
                tell(
                    f"{history.steps} steps in {history.seconds:.0f} s{reason}; "
                    f"kept the weights of step {history.best_step}"
                )
            if history.stopped == "interrupted":
                return Outcome(folder, history, [])
            results = evaluate_all(
                config, shape, learner, targets, history.best_step, progress, group
            )
        results = [replace(r, command=out.command) for r in results]
        tell("drawing the report")
        run_report(folder, config, learner, data, history, results)
        out.finish(results)
        return Outcome(folder, history, results)


def _check_steps(config: RunConfig, learner: MetaLearner) -> None:
    steps, name = config.train.steps, type(learner).__name__
    if not any(True for _ in learner.parameters()):
        raise ConfigError(
            f"{config.learner.name} without an encoder has nothing to train: set "
            "encoder.name=conv4 for images, or mlp for other features."
        )
    movable = any(p.requires_grad for p in learner.parameters())
    if steps and not (learner.trains and movable):
        why = "takes its encoder as it is" if not learner.trains else "has only frozen weights here"
        raise ConfigError(
            f"{name} {why}: there is nothing to train in {steps} steps. Set train.steps=0 to "
            "evaluate it" + (", or encoder.slow to what shall move." if learner.trains else ".")
        )
    if not steps and learner.trains and any(p.requires_grad for p in learner.body.parameters()):
        raise ConfigError(
            f"train.steps=0 would leave {name} untrained: give it steps, or set encoder.slow=none "
            "to take a pretrained encoder as it is."
        )


def _validation(config: RunConfig, data: Dataset) -> FrozenEpisodes | None:
    if "val" not in data.splits or config.train.split != "train":
        return None
    return FrozenEpisodes(data["val"], config.validation.spec, config.validation.episodes)


def _target(evaluation: EvaluationConfig, config: RunConfig, data: Dataset) -> Source:
    """The source of an evaluation."""
    part = evaluation.dataset
    own = {p.name: p.options for p in config.datasets}
    if part is None or (list(own) == [part.name] and not part.options):
        source = data[evaluation.split]
    else:
        source = load(part.name, **{**own.get(part.name, {}), **part.options})[evaluation.split]
    return source


def _rehearse(
    config: RunConfig,
    data: Dataset,
    learner: MetaLearner,
    validation: FrozenEpisodes | None,
    targets: list[Target],
) -> None:
    """One episode of each kind, so that what cannot work fails now and not after the training."""
    t = config.train
    if any(e.test_steps for e, _ in targets) and not isinstance(learner.head, InnerLoop):
        raise ConfigError(
            f"evaluation.test_steps counts inner steps, which {type(learner).__name__} has not: "
            "leave it out."
        )
    with _explained(learner, source := source_of(data, t.split), t.spec):
        episode = draw(source, t.spec, config.seed, [0])
        learner.check(augment(episode, [AUGMENTATIONS[name] for name in t.augment]).support)
    asked = [(learner, validation.source, validation.spec)] if validation else []
    for method, source, spec in [*asked, *((stated(learner, e), s, e.spec) for e, s in targets)]:
        with _explained(method, source, spec):
            predictions(method, draw(source, spec, config.seed, [0]))


@contextmanager
def _explained(learner: MetaLearner, source: Source, spec: EpisodeSpec) -> Iterator[None]:
    try:
        yield
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
    if learner.observes:
        source = source_of(data, config.train.split)
        parts = source.sources if isinstance(source, (Split, Mixture)) else ()
        with evaluating(learner), torch.no_grad():
            learner.observe(torch.cat([embed_split(learner, part) for part in parts]))
    if config.train.steps == 0:
        learner.eval()
        return History()
    first = processes.rank == 0
    with _tensorboard(out) if first else nullcontext(lambda row: None) as log:

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
def _tensorboard(out: RunFolder) -> Iterator[Callable[[Row], None]]:
    """Logs rows to TensorBoard where it is installed, else nowhere."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    # What was logged after the checkpoint comes again.
    again = out.steps + 1 if out.started else None
    writer = SummaryWriter(str(out.path / "tensorboard"), purge_step=again)

    def log(row: Row) -> None:
        for name in ("loss", "lr", "validation"):
            if (value := getattr(row, name)) is not None:
                writer.add_scalar(name, value, row.step)

    try:
        yield log
    finally:
        writer.close()
