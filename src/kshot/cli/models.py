"""The commands for people with a few examples of their own; `app` holds the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from kshot.cli.options import Device, Settings

models = typer.Typer()

Model = Annotated[Path, typer.Argument(help="A model file of `kshot fit`.")]
Label = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--label", help="The column of labels in a table.", show_default="label"),
]
Columns = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--column",
        help="A column of a table: the one of texts, or one of numbers; repeatable.",
        show_default="all but the label",
    ),
]


@models.command()
def fit(
    source: Annotated[
        Path,
        typer.Argument(help="A folder with a folder of images per class, or a .csv or .jsonl."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The model file to write.")] = Path(
        "model.kshot"
    ),
    learner: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A run folder, a model file, or a method (see kshot learners)."),
    ] = None,
    encoder: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A pretrained network: efficientnet_lite0, minilm, timm:NAME, ..."),
    ] = None,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="An option such as encoder.size=96; repeatable."),
    ] = None,
    label: Label = None,
    columns: Columns = None,
    values: Annotated[
        bool, typer.Option("--values", help="The labels are numbers to be predicted.")
    ] = False,
    false_accepts: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Answer unknown, so that so few strangers pass, such as 0.05."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Learn classes from a few examples of each, and keep them in a model file."""
    from kshot.cli import fit as command

    command.fit(
        source,
        out,
        learner,
        encoder,
        settings or [],
        label,
        columns,
        values,
        false_accepts,
        device,
    )


@models.command()
def predict(
    model: Model,
    inputs: Annotated[
        list[str], typer.Argument(help="Images, folders of images, tables (.csv, .jsonl).")
    ],
    label: Label = None,
    columns: Columns = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="A file in the place of standard output."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Say what new examples are, one line each."""
    from kshot.cli import predict as command

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv are two forms: choose one.")
    form = "json" if as_json else "csv" if as_csv else "text"
    if command.predict(model, inputs, label, columns, form, out, device):
        raise typer.Exit(2)


@models.command()
def inspect(
    model: Model,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="The page.", show_default="the model's name with .html"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Show a model's examples on a page: a map, confusions, doubtful labels, duplicates."""
    from kshot.cli import inspect as command

    command.inspect(model, out, device)


@models.command()
def export(
    model: Model,
    onnx: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--onnx", help="An ONNX file to write."),
    ] = None,
    torch: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--torch", help="A program of torch.export (.pt2) to write."),
    ] = None,
) -> None:
    """Write a model for programs that do not have kshot."""
    from kshot.cli import export as command

    command.export(model, onnx, torch)


@models.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="The folder of a `kshot train`.")],
    settings: Settings = None,
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="To test on; the run's own by default."),
    ] = None,
    way: Annotated[int, typer.Option(help="Classes per tested task.", min=2)] = 5,
    shot: Annotated[int, typer.Option(help="Examples per class.", min=1)] = 5,
    episodes: Annotated[int, typer.Option(help="Of the test.", min=1)] = 1000,
    json_out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Also write the record here."),
    ] = None,
    picture: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="A picture of the reliability (.png)."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure a run's confidence on meta-validation, and test it on meta-test."""
    from kshot.cli import calibrate as command

    command.calibrate(run, dataset, settings or [], way, shot, episodes, json_out, picture, device)
