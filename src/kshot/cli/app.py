"""The command line. Heavy imports stand inside the commands, so that `--help` is quick."""

from __future__ import annotations

import errno
import sys
import warnings
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Optional, TextIO, cast

import typer
from typer.core import TyperGroup

from kshot.cli.models import models
from kshot.cli.options import (
    DatasetOf,
    Device,
    Episodes,
    JsonOut,
    Out,
    Query,
    QueryOf,
    Quick,
    Quiet,
    Resume,
    Run,
    Seed,
    Settings,
    Shot,
    ShotOf,
    SplitName,
    Start,
    TestSteps,
    TrainSeed,
    TrainSettings,
    Transductive,
    Way,
    WayOf,
    Workers,
)
from kshot.cli.output import Output
from kshot.memory import keep_freed_memory

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


class _Commands(TyperGroup):
    """Says what Ctrl-C means for a command that cannot go on where it was."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.secho("interrupted: no file was written; give the command again.", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    name="kshot",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Meta-learning: learn, over many tasks, how to learn a new one from a few examples.",
)


def _version(asked: bool) -> None:
    if asked:
        import kshot

        typer.echo(f"kshot {kshot.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def train(
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="A recipe's name (see `kshot recipes`) or a TOML file.",
            show_default="protonet-glyphs",
        ),
    ] = None,
    settings: TrainSettings = None,
    device: Device = "auto",
    seed: TrainSeed = None,
    out: Out = None,
    start: Start = None,
    resume: Resume = None,
    workers: Workers = 1,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Train from so many seeds; report their spread.")
    ] = 1,
    quick: Quick = False,
    quiet: Quiet = False,
) -> None:
    """Meta-train a learner, evaluate it on unseen classes, and write a report."""
    from kshot.cli import train as command

    command.train(
        recipe, settings or [], device, seed, out, start, resume, workers, seeds, quick, quiet
    )


@app.command()
def pretrain(
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="A recipe of a classifier's (see `kshot recipes`) or a TOML file.",
            show_default="pretrain-glyphs",
        ),
    ] = None,
    settings: TrainSettings = None,
    device: Device = "auto",
    seed: TrainSeed = None,
    out: Out = None,
    start: Start = None,
    resume: Resume = None,
    workers: Workers = 1,
    quick: Quick = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder to classify the base classes: the first stage of transfer."""
    from kshot.cli import train as command

    if resume is None:
        recipe = command.pretraining(recipe, settings or [])
    command.train(
        recipe, settings or [], device, seed, out, start, resume, workers, 1, quick, quiet
    )


@app.command()
def evaluate(
    run: Run,
    dataset: DatasetOf = None,
    settings: Settings = None,
    split: SplitName = "test",
    way: WayOf = None,
    shot: ShotOf = None,
    query: QueryOf = None,
    episodes: Episodes = 1000,
    seed: Seed = 0,
    transductive: Transductive = None,
    test_steps: TestSteps = None,
    device: Device = "auto",
    json_out: JsonOut = None,
) -> None:
    """Score a trained run on frozen episodes, beside 1-nearest-neighbour."""
    from kshot.cli import evaluate as command

    request = command.Request(
        dataset=dataset,
        settings=settings or [],
        split=split,
        way=way,
        shot=shot,
        query=query,
        episodes=episodes,
        seed=seed,
        transductive=transductive,
        test_steps=test_steps,
        device=device,
    )
    command.evaluate(run, request, json_out)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `kshot train`.")],
    dataset: DatasetOf = None,
    settings: Settings = None,
    split: SplitName = "test",
    way: WayOf = None,
    shot: ShotOf = None,
    query: QueryOf = None,
    episodes: Episodes = 1000,
    seed: Seed = 0,
    transductive: Transductive = None,
    test_steps: TestSteps = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("compare.png"),
    json_out: JsonOut = None,
) -> None:
    """Score runs on the same frozen episodes; say how they differ, and how surely."""
    from kshot.cli import compare as command
    from kshot.cli.evaluate import Request

    request = Request(
        dataset=dataset,
        settings=settings or [],
        split=split,
        way=way,
        shot=shot,
        query=query,
        episodes=episodes,
        seed=seed,
        transductive=transductive,
        test_steps=test_steps,
        device=device,
    )
    command.compare(runs, request, out, json_out)


@app.command()
def transfer(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `kshot train`.")],
    targets: Annotated[
        str, typer.Option(help="Data sets to transfer to, such as digits,omniglot.")
    ] = "digits",
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="An option of a target, such as omniglot.size=28; repeatable."),
    ] = None,
    way: Way = 5,
    shot: Shot = 5,
    query: Query = 15,
    episodes: Episodes = 600,
    tuning: Annotated[
        int, typer.Option(min=2, help="Episodes of validation classes that rivals are tuned on.")
    ] = 30,
    seed: Seed = 0,
    shared: Annotated[
        str, typer.Option(help="Classes of source and target: refuse, drop or keep them.")
    ] = "refuse",
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("transfer.png"),
    json_out: JsonOut = None,
) -> None:
    """Score runs on other domains, beside a frozen encoder and tuned fine-tuning."""
    from kshot.cli import transfer as command
    from kshot.episodes import EpisodeSpec
    from kshot.training.build import pick_device
    from kshot.training.transfer import Judge

    names = [name.strip() for name in targets.split(",") if name.strip()]
    judge = Judge(EpisodeSpec(way, shot, query), episodes, tuning, seed, pick_device(device))
    command.transfer(runs, names, settings or [], judge, shared, out, json_out)


@app.command()
def embed(
    run: Run,
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    dataset: DatasetOf = None,
    settings: Settings = None,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="One split; all of them by default."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Embed every image of a data set by a run's encoder, as a data set of features."""
    from kshot.cli import embed as command

    command.embed(run, dataset, settings or [], split, out, device)


@app.command()
def datasets() -> None:
    """List the data sets: size, splits, source, licence, present or not."""
    from kshot.cli import listing

    listing.datasets()


@app.command()
def recipes() -> None:
    """List the recipes that come with kshot."""
    from kshot.cli import listing

    listing.recipes()


@app.command()
def learners() -> None:
    """List the learners: family, paper, what is fast, what they are for."""
    from kshot.cli import listing

    listing.learners()


@app.command()
def cite(
    learner: Annotated[str, typer.Argument(help="A learner, as `kshot learners` names it.")],
) -> None:
    """Print the BibTeX entry of a learner's paper."""
    from kshot.cli import listing

    listing.cite(learner)


@app.command()
def episodes(
    dataset: Annotated[str, typer.Argument(help="A data set of images.")] = "glyphs",
    settings: Settings = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Way = 5,
    shot: Shot = 1,
    query: Query = 8,
    count: Annotated[int, typer.Option(min=1, max=20, help="How many to draw.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the episodes.")] = 0,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("episodes.png"),
) -> None:
    """Draw some episodes as a picture: support | queries."""
    from kshot.cli import episodes as command
    from kshot.episodes import EpisodeSpec

    spec = EpisodeSpec(way, shot, query)
    command.episodes(dataset, settings or [], split, spec, count, seed, out)


@app.command()
def env() -> None:
    """Print what a bug report needs."""
    from kshot.cli import listing

    listing.env()


app.add_typer(models)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line, without the place in the source."""
    typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW)


def main() -> None:
    """Run the command line; a mistake of the user's is one line and exit code 2."""
    keep_freed_memory()
    warnings.showwarning = _warn
    stdout = sys.stdout
    if isinstance(stdout, TextIOWrapper):  # the name of a file need not be UTF-8
        stdout.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, Output(stdout))
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        from kshot.errors import KshotError

        if isinstance(error, KshotError):
            typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
            sys.exit(2)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            typer.secho(f"error: {error.strerror}: free some.", err=True, fg=typer.colors.RED)
            sys.exit(2)
        first = (str(error).splitlines() or [""])[0]
        typer.secho(
            f"unexpected {type(error).__name__}: {first}\n"
            "This is a bug of kshot's: please report it with `kshot --debug ...` and `kshot env`.",
            err=True,
            fg=typer.colors.RED,
        )
        sys.exit(1)
    finally:
        sys.stdout = stdout
