"""Meta-training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kshot.datasets.base import Dataset
from kshot.datasets.sources import Mixture, Source, Split
from kshot.engine.processes import ALONE, Processes
from kshot.episodes import EpisodeSpec, FrozenEpisodes, augment, draw
from kshot.episodes.augment import Augmentation
from kshot.episodes.spec import Range, Shot
from kshot.errors import ConfigError
from kshot.evaluation.embedding import embedded, evaluating, is_fixed
from kshot.interrupt import stop_on_signals
from kshot.learners.base import MetaLearner
from kshot.nn.prepared import Pretrained
from kshot.training import settings
from kshot.training.bar import training_bar
from kshot.training.hard_tasks import HardTasks
from kshot.training.keeper import Keeper
from kshot.training.optim import Optimizer, make_optimizer, make_schedule
from kshot.training.outer_loop import OuterLoop
from kshot.training.state import Best, History, Row, TrainingState
from kshot.training.validation import default_validation
from kshot.types import Episode


def meta_train(
    learner: MetaLearner,
    data: Dataset | Source,
    *,
    way: Range = 5,
    shot: Shot = 1,
    query: int = 15,
    imbalanced: bool = False,
    steps: int = 1000,
    meta_batch: int = 1,
    lr: float = 1e-3,
    optimizer: Optimizer = "adam",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    clip: float | None = None,
    validation: FrozenEpisodes | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    hard_tasks: bool = False,
    augmentations: Sequence[Augmentation] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
    checkpoint: Path | str | None = None,
    processes: Processes = ALONE,
    on_row: Callable[[Row, bool], None] | None = None,
    progress: bool = True,
) -> History:
    """Meta-train a learner, in place, and leave it with its best weights.

    Best is judged by the validation episodes alone: a data set's split `val`, or `validation`.
    Without either the last weights are kept. Ctrl-C ends the run cleanly, with what it has.

    Args:
        learner: what is trained. In training mode it keeps its modules' modes, such as that of a
            part that you have set to `eval()`; in evaluation mode all of it is set to training. It
            comes back in evaluation mode: before another call, which may go on from a checkpoint,
            set the modes again.
        data: a data set (its splits `train` and `val` are used), or a source of episodes.
        way: classes per task in meta-training.
        shot: support examples per class, a range of them, or `"any"` (Meta-Dataset's rule).
        query: queries per class.
        imbalanced: draw the shot, where it is a range, for each class.
        steps: outer steps.
        meta_batch: tasks per outer step.
        lr: the outer learning rate.
        optimizer: `adam`, `sgd`, or anything that makes a torch optimizer of the parameters.
        momentum: of `sgd`.
        weight_decay: of `adam` and `sgd`: added to the gradients, times the weights.
        schedule: `constant`, `linear`, `cosine` or `halve:N`.
        clip: greatest norm of the meta-gradient.
        validation: frozen episodes; by default 200 of the split `val`, shaped as in training.
        validate_every: outer steps between validations.
        patience: validations without a new best after which the run ends.
        hard_tasks: after ordinary tasks, a meta-batch of the classes that were answered worst.
        augmentations: applied to the training images, keyed by episode.
        seed: of the training episodes.
        device: where to train; the learner's own device by default.
        checkpoint: a file that keeps the whole state of the training. Where it exists, the
            training goes on from it and ends with the same weights, bit for bit, as if it had
            never been stopped (on the same machine, with the same settings).
        processes: who shares each meta-batch (see `kshot.engine.processes`).
        on_row: called with each new row, and whether its weights are the best so far.
        progress: show a bar with rate, time left, loss and validation score.

    Raises:
        EpisodeError: if the data cannot give such episodes.
        ConfigError: for impossible settings.
        CheckpointError: if the checkpoint belongs to another training or cannot be written.
        DivergedError: if the loss or the gradient becomes NaN, or every validation was; the last
            good weights are kept.
        DifferentiationError: if a layer cannot be differentiated as the learner needs.
        WorkerError: if one of the processes ends; the checkpoint has the last whole step.
    """
    _check_numbers(steps, meta_batch, validate_every, clip, patience)
    if min(meta_batch, validation.count if validation else meta_batch) < processes.size:
        raise ConfigError(
            f"a meta-batch of {meta_batch} tasks (or the validation episodes) cannot be shared "
            f"among {processes.size} processes: raise train.meta_batch, or lower --workers."
        )
    if query < 1 and learner.needs_query:
        raise ConfigError(f"query={query}: {type(learner).__name__} needs at least 1 per class.")
    spec = EpisodeSpec(way, shot, query, imbalanced)
    source = data["train"] if isinstance(data, Dataset) else data
    spec.check(source)
    if validation is None and isinstance(data, Dataset) and "val" in data.splits:
        validation = default_validation(data["val"], spec)
    if device is not None:
        learner.to(device)
    parameters = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise ConfigError(f"{type(learner).__name__} has nothing to train: give it an encoder.")
    if not learner.training:
        learner.train()
    outer = make_optimizer(optimizer, parameters, lr, momentum=momentum, weight_decay=weight_decay)
    decided = {
        **settings.of_episodes(source, spec, seed),
        "meta_batch": str(meta_batch),
        "augmentations": settings.describe(augmentations),
        **settings.of_optimizer(outer),
        "schedule": schedule,
        "steps": str(steps),
        "clip": str(clip),
        "validation": "none" if validation is None else validation.hash,
        "validate_every": str(validate_every),
        "patience": str(patience),
        "hard_tasks": str(hard_tasks),
        **settings.of_learner(learner),
    }
    scheduler = make_schedule(outer, schedule, steps)
    whole = learner
    if _sees_features(learner) and not augmentations:
        learner, source, validation = _behind_its_encoder(learner, source, validation)
    state = TrainingState(learner, outer, scheduler, Best(learner), History())
    path = None if checkpoint is None else Path(checkpoint)
    keeper = Keeper(path, state, decided, writes=processes.rank == 0)
    keeper.load()
    hard = HardTasks(source, spec, seed, learner) if hard_tasks else None
    if hard is not None:
        hard.pool = state.pool

    def next_tasks(index: Sequence[int]) -> Episode:
        episode = draw(source, spec, seed, index) if hard is None else hard.draw(index)
        return augment(episode, augmentations, seed)

    gpus = [p.device for p in parameters[:1] if p.is_cuda]
    with (
        torch.random.fork_rng(gpus),
        training_bar(steps, state.history.steps, progress) as tell,
        stop_on_signals() as stop,
    ):
        OuterLoop(
            learner=learner,
            state=state,
            keeper=keeper,
            parameters=parameters,
            draw=next_tasks,
            hard=hard,
            steps=steps,
            meta_batch=meta_batch,
            clip=clip,
            seed=seed,
            validation=validation,
            validate_every=validate_every,
            patience=patience,
            processes=processes,
            stop=stop,
            on_row=on_row or (lambda row, improved: None),
            tell=tell,
        ).run()
    whole.eval()
    return state.history


def _sees_features(learner: MetaLearner) -> bool:
    """Whether an example enters the head as the same features whenever it is drawn."""
    policy = "frozen" if learner.normalizes else learner.normalization
    own = isinstance(learner.encoder, Pretrained) and learner.normalization == policy
    return own and is_fixed(learner)


def _behind_its_encoder(
    learner: MetaLearner, source: Source, validation: FrozenEpisodes | None
) -> tuple[MetaLearner, Source, FrozenEpisodes | None]:
    """The same training on features that are embedded once."""
    twin = learner
    with evaluating(learner):
        if isinstance(source, (Split, Mixture)):
            twin, source = embedded(learner, source)
        if twin is not learner and validation and isinstance(validation.source, (Split, Mixture)):
            validation = replace(validation, source=embedded(learner, validation.source)[1])
    return twin, source, validation


def _check_numbers(
    steps: int,
    meta_batch: int,
    validate_every: int,
    clip: float | None,
    patience: int | None,
) -> None:
    if min(steps, meta_batch, validate_every) < 1:
        raise ConfigError(
            f"steps={steps}, meta_batch={meta_batch} and validate_every={validate_every} "
            "must be at least 1."
        )
    if clip is not None and not 0 < clip < math.inf:
        raise ConfigError(f"clip={clip} must be greater than 0 and finite; None does not clip.")
    if patience is not None and patience < 1:
        raise ConfigError(f"patience={patience} must be at least 1; None never stops early.")
