"""`kshot evaluate`, and what `kshot compare` and `kshot embed` share with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from kshot import evaluation
from kshot.cli.tables import footer, result_table
from kshot.datasets import Dataset, Mixture, Split, load
from kshot.datasets.sources import Source
from kshot.episodes import EpisodeSpec, draw
from kshot.errors import CheckpointError, ConfigError, KshotError
from kshot.evaluation import Result, as_protocol, over_seeds, predictions
from kshot.files import write_json
from kshot.learners import MetaLearner
from kshot.learners.inner_loop import InnerLoop
from kshot.learners.nearest_neighbour import NearestNeighbour
from kshot.training import load_run
from kshot.training.build import load_data, pick_device
from kshot.training.config import EvaluationConfig, read_settings
from kshot.training.lineage import lineage
from kshot.training.run import RESULTS, Run
from kshot.training.scores import RAW_BASELINE, has_raw
from kshot.training.seeds import read_plan


@dataclass(frozen=True)
class Request:
    """Which episodes to score on, and how.

    Attributes:
        dataset: by name; the first run's own if None.
        settings: the data set's options, each `key=value`.
        split: of the data set.
        way: classes per task; as in the first evaluation of the run's recipe if None.
        shot: support examples per class; likewise.
        query: queries per class; likewise.
        episodes: how many.
        seed: of the episodes.
        transductive: how batch statistics are used; as in meta-training if None.
        test_steps: inner steps; the learner's own if None.
        device: by name.
    """

    dataset: str | None
    settings: Sequence[str]
    split: str
    way: int | None
    shot: int | None
    query: int | None
    episodes: int
    seed: int
    transductive: bool | None
    test_steps: int | None
    device: str

    def spec(self, run: Run) -> EpisodeSpec:
        """The episodes that are asked for, where nothing is said those of the run's recipe."""
        first = (run.config.evaluation or [EvaluationConfig()])[0]
        return EpisodeSpec(
            first.way if self.way is None else self.way,
            first.shot if self.shot is None else self.shot,
            first.query if self.query is None else self.query,
            first.imbalanced and self.shot is None,
        )

    def replays_selection(self, run: Run, spec: EpisodeSpec) -> bool:
        """Whether the run's weights were chosen by such episodes."""
        config = run.config
        names = [part.name for part in config.datasets]
        own = not self.settings and (self.dataset is None or [self.dataset] == names)
        validated = self.split == "val" and config.train.split == "train"
        return own and validated and spec == config.validation.spec and self.seed == 0


def evaluate(folder: Path, request: Request, json_out: Path | None) -> None:
    """Score the run and the raw-input baseline on the same frozen episodes."""
    console = Console(highlight=False)
    check_writable(json_out)
    runs = load_runs(folder)
    source = chosen_data(runs[0], request.dataset, request.settings)[request.split]
    spec = request.spec(runs[0])
    results = score({_name(runs[0].learner, request): runs}, source, spec, request)
    console.print(result_table(results))
    console.print(footer(results), style="dim")
    warn_of_unfinished(console, runs)
    warn_of_replays(console, runs, spec, request)
    warn_of_seen_classes(console, runs, source)
    if json_out is not None:
        write_json(json_out, [r.as_dict() for r in results])
        console.print(f"Record: {json_out}")


def _name(learner: MetaLearner, request: Request) -> str:
    """The method, with its inner steps if it takes any."""
    name = learner.title
    if not isinstance(learner.head, InnerLoop):
        return name
    steps = learner.head.test_steps if request.test_steps is None else request.test_steps
    return f"{name}, {steps} step{'s' if steps != 1 else ''}"


LONGEST_NAME = 240
"""Of a file, in bytes: file systems take 255, and while it is written its name is longer."""


def check_writable(path: Path | None, *read: Path) -> None:
    """Raise an error if a file cannot be written there, before anything is computed.

    Args:
        path: of the file.
        read: files that it must not replace.

    Raises:
        CheckpointError: if it cannot be written.
        ConfigError: if it is one of those that are read.
    """
    if path is None:
        return
    if any(path.resolve() == other.resolve() for other in read):
        raise ConfigError(f"{path} would be replaced by what is made of it: name another file.")
    # Folders that are missing are made when the file is written.
    home = next(parent for parent in path.absolute().parents if parent.exists())
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise CheckpointError(f"cannot write {path}: choose a folder that you may write to.")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise CheckpointError(
            f"cannot write {path.name[:40]}...: the name is too long, choose a shorter one."
        )
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name a file in it.")
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is a device: name a file, or leave it out.")


def check_picture(path: Path) -> None:
    """Raise ConfigError or CheckpointError if no picture can be written there."""
    if path.suffix.lower() != ".png":
        raise ConfigError(
            f"--out {path}: pictures are PNG files: give it a name that ends in .png."
        )
    check_writable(path)


def load_runs(folder: Path) -> list[Run]:
    """The run in a folder, or the runs of all its training seeds."""
    plan = read_plan(folder)
    if plan is None:
        return [load_run(folder)]
    config, count = plan
    return [load_run(folder / f"seed-{seed}") for seed in range(config.seed, config.seed + count)]


def chosen_data(run: Run, dataset: str | None, settings: Sequence[str]) -> Dataset:
    """The data set of that name with these options; by default the run's own with its own."""
    own = {part.name: part.options for part in run.config.datasets}
    if dataset is None and not settings:
        return load_data(run.config)
    if dataset is None and len(own) > 1:
        raise ConfigError(
            f"{run.folder} was trained on {' and '.join(own)}: say by --dataset whose option "
            f"{settings[0]} is."
        )
    name = dataset or next(iter(own))
    return load(name, **{**own.get(name, {}), **read_settings(settings)})


def score(
    runs: Mapping[str, Sequence[Run]], source: Source, spec: EpisodeSpec, request: Request
) -> list[Result]:
    """A result over the training seeds of each method, then one of the raw-input baseline."""
    methods: list[tuple[str, MetaLearner, Run | None]] = [
        (name, _as_asked(run, source, spec, request), run) for name in runs for run in runs[name]
    ]
    if isinstance(source, (Split, Mixture)) and has_raw(source):
        methods.append((RAW_BASELINE, NearestNeighbour(), None))
    found: dict[str, list[Result]] = {}
    with progress_bar() as bar:
        for name, learner, run in methods:
            result = evaluation.evaluate(
                learner,
                source,
                way=spec.way,
                shot=spec.shot,
                query=spec.query,
                imbalanced=spec.imbalanced,
                episodes=request.episodes,
                seed=request.seed,
                name=name,
                meta_steps=run.meta_steps if run else 0,
                training_seed=run.config.seed if run else None,
                progress=partial(_advance, bar, bar.add_task(name, total=request.episodes)),
            )
            found.setdefault(name, []).append(result)
    return [over_seeds(results) for results in found.values()]


def progress_bar() -> Progress:
    """A bar that goes when its work is done; none where nobody would see it."""
    console = Console()
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _as_asked(run: Run, source: Source, spec: EpisodeSpec, request: Request) -> MetaLearner:
    """The run's learner, tried on an episode, so that what cannot work says so by its name."""
    learner = run.learner.to(pick_device(request.device))
    episode = draw(source, spec, request.seed, [0])
    try:
        if request.transductive is not None:
            learner = as_protocol(learner, request.transductive)
        if request.test_steps is not None:
            if not isinstance(learner.head, InnerLoop):
                raise ConfigError(
                    f"{type(learner).__name__} takes no inner steps: leave --test-steps away."
                )
            learner.head.test_steps = request.test_steps
        predictions(learner, episode)
    except (KshotError, RuntimeError) as error:
        raise ConfigError(
            f"{run.folder} cannot be scored on {spec.describe()} tasks of {source.name}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return learner


def warn_of_unfinished(console: Console, runs: Sequence[Run]) -> None:
    """Say so where a training was stopped, or has diverged."""
    for run in runs:
        if not (run.folder / RESULTS).exists():
            console.print(
                f"{run.folder} was stopped or has diverged: these are its weights of step "
                f"{run.meta_steps:,} of {run.config.train.steps:,}; "
                f"kshot train --resume {shlex.quote(str(run.folder))} goes on with it.",
                style="yellow",
            )


def warn_of_replays(
    console: Console, runs: Sequence[Run], spec: EpisodeSpec, request: Request
) -> None:
    """Say so where a run is scored on episodes that chose its weights."""
    for run in runs:
        if request.replays_selection(run, spec):
            count = min(request.episodes, run.config.validation.episodes)
            console.print(
                f"{run.folder}: its weights were chosen by {count:,} of these episodes, so that "
                "the score says too much: use --split test or another --seed.",
                style="yellow",
            )


def warn_of_seen_classes(console: Console, runs: Sequence[Run], source: Source) -> None:
    """Say so where the data hold classes of a training behind a run, or may hold them."""
    for run in runs:
        for warning in lineage(run.config).warnings(source):
            console.print(f"{run.folder}: {warning}.", style="yellow", markup=False)


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
