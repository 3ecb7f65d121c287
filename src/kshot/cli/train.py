"""`kshot train`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from kshot.cli.app import INTERRUPTED
from kshot.cli.tables import result_table
from kshot.engine.processes import (
    Processes,
    from_environment,
    join_processes,
    local_workers,
    own_rank,
)
from kshot.errors import ConfigError
from kshot.learners import learner_class
from kshot.learners.supervised import SupervisedLearner
from kshot.nn import IMAGE_ENCODERS
from kshot.nn.pretrained import PRETRAINED, is_pretrained
from kshot.training.build import pick_device
from kshot.training.config import (
    EvaluationConfig,
    RunConfig,
    read_recipe,
    recipe_names,
    validate,
    with_settings,
)
from kshot.training.job import Outcome, run
from kshot.training.run import has_adapters, read_config
from kshot.training.seeds import PLAN, read_plan, run_seeds

DEFAULT_RECIPE, DEFAULT_PRETRAINING = "protonet-glyphs", "pretrain-glyphs"


def train(
    recipe: str | None,
    settings: Sequence[str],
    device: str,
    seed: int | None,
    out: Path | None,
    start: str | None,
    resume: Path | None,
    workers: int,
    seeds: int,
    quick: bool,
    quiet: bool,
) -> None:
    """Read the recipe or the stopped run, run it, show the table and what to do next."""
    rank = own_rank()
    console = Console(highlight=False, quiet=rank > 0)
    if resume is not None:
        if recipe or settings or out or start or seed is not None or seeds > 1 or quick:
            raise ConfigError(
                "--resume goes on with a run as it was begun: leave recipe, --set, --from, --seed, "
                "--seeds, --quick and --out away."
            )
        config, seeds = read_plan(resume) or (read_config(resume), 1)
        folder, what = resume, "--resume"
    else:
        what = recipe or DEFAULT_RECIPE
        changed = [*settings, *([f"seed={seed}"] if seed is not None else [])]
        if start is None:
            config = read_recipe(what, changed, quick=quick)
        else:  # what is set by name has the last word
            started = _started_from(read_recipe(what, quick=quick), start)
            config = with_settings(started, changed)
        folder = out or _next_folder(config.name)
    where = pick_device(device)

    def processes(run_folder: Path) -> AbstractContextManager[Processes]:
        if from_environment():
            return nullcontext(join_processes())
        command = ["train", "--resume", str(run_folder), "--device", device]
        return local_workers(workers, [sys.executable, "-m", "kshot", *command])

    def ready() -> None:
        console.print(
            f"[bold]kshot train[/bold] {escape(what)} on {where} -> {escape(str(folder))}"
        )
        if not quiet:
            console.print(_settings(config), style="dim", markup=False)

    job = run if seeds == 1 else partial(run_seeds, count=seeds)
    try:
        outcome = job(
            config,
            folder,
            device=where,
            resume=resume is not None,
            processes=processes,
            rank=rank,
            progress=not quiet,
            ready=ready,
            tell=partial(console.print, markup=False, soft_wrap=True),
        )
        interrupted = outcome.history.stopped == "interrupted"
    except KeyboardInterrupt:  # outside of the training itself
        if not _begun(folder):
            raise
        interrupted = True
    if interrupted:
        if _begun(folder):
            again = f"kshot train --resume {shlex.quote(str(folder))}"
            again += f" --workers {workers}" if workers > 1 else ""
            console.print(f"interrupted; go on with: {again}", markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if outcome.results:
        console.print(result_table(outcome.results))
    if outcome.results or outcome.history.steps:
        _next_steps(console, folder, config, outcome)


def pretraining(recipe: str | None, settings: Sequence[str]) -> str:
    """The recipe, if its learner is trained by classification; ConfigError otherwise."""
    recipe = recipe or DEFAULT_PRETRAINING
    learner = read_recipe(recipe, settings).learner.name
    if not issubclass(learner_class(learner), SupervisedLearner):
        raise ConfigError(
            f"{recipe} trains {learner}, which is not trained by classification: pretrain by a "
            f"recipe of baseline or baseline++, such as {DEFAULT_PRETRAINING}; then "
            f"`kshot train {recipe} --from RUN`."
        )
    return recipe


def _started_from(config: RunConfig, start: str) -> RunConfig:
    """The recipe with the encoder of a run, of a file, or of a pretrained network by name."""
    encoder: dict[str, Any] = config.encoder.model_dump(mode="json")
    if is_pretrained(start):
        encoder = {"name": start}
    elif Path(start).is_dir():
        encoder = {**read_config(Path(start)).encoder.model_dump(mode="json"), "weights": start}
        encoder["complete"] |= has_adapters(Path(start))
    elif Path(start).is_file():
        encoder["weights"] = start
    else:
        raise ConfigError(
            f"--from {start}: there is no run folder or file of that name, and no pretrained "
            f"network; of those there are {', '.join(PRETRAINED)}."
        )
    encoder["slow"] = config.encoder.slow.model_dump(mode="json")
    return validate({**config.model_dump(mode="json"), "encoder": encoder})


def _begun(folder: Path) -> bool:
    return (folder / "run.json").exists() or (folder / PLAN).exists()


def _next_steps(console: Console, folder: Path, config: RunConfig, outcome: Outcome) -> None:
    report = folder / "report.html"
    found = f"Report: {report}" if report.exists() else f"Runs: {folder}"
    console.print(f"\n{found}\nNext:", markup=False, soft_wrap=True)
    steps = [
        (f"kshot train {_another(config)}", "another method"),
        ("kshot recipes", "all that come with kshot"),
    ]
    if config.encoder.name in IMAGE_ENCODERS:
        steps.insert(0, (_episodes(config), "see the tasks"))
    if all(result.metric == "accuracy" for result in outcome.results):
        again = f"kshot evaluate {shlex.quote(str(folder))} --episodes 5000"
        steps.insert(0, (again, "surer numbers"))
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        console.print(f"  {escape(command.ljust(width))}  [dim]# {why}[/dim]", soft_wrap=True)


def _episodes(config: RunConfig) -> str:
    """The command that draws episodes as the run's first evaluation has them."""
    first = (config.evaluation or [EvaluationConfig()])[0]
    part = first.dataset or config.datasets[0]
    words = ["kshot", "episodes", part.name]
    for key, value in part.options.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else _toml(value)}"]
    for key, value, default in (("way", first.way, 5), ("shot", first.shot, 1)):
        most = value[1] if isinstance(value, tuple) else value
        if isinstance(most, int) and most != default:
            words += [f"--{key}", str(most)]
    return shlex.join(words)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def _another(config: RunConfig) -> str:
    """A recipe of another method, on the same data if there is one."""
    same = [
        recipe.name
        for recipe in map(read_recipe, recipe_names())
        if recipe.datasets[0].name == config.datasets[0].name
        and recipe.learner.name != config.learner.name
    ]
    otherwise = "protonet-glyphs" if config.learner.name == "maml" else "maml-glyphs"
    return same[0] if same else otherwise


def _settings(config: RunConfig) -> str:
    """The resolved configuration, a line for each section."""
    lines = []
    for section, value in config.model_dump(mode="json").items():
        for row in value if isinstance(value, list) else [value]:
            body = (
                " ".join(f"{k}={json.dumps(v)}" for k, v in row.items() if v is not None)
                if isinstance(row, dict)
                else str(row)
            )
            lines.append(f"  {section:<11}{body}")
    return "\n".join(lines)


def _next_folder(name: str) -> Path:
    numbers = (i for i in range(1, 10**6) if not Path("runs", f"{name}-{i:03d}").exists())
    return Path("runs", f"{name}-{next(numbers):03d}")
