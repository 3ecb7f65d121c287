"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Way = Annotated[int, typer.Option(help="Classes per task.")]
Shot = Annotated[int, typer.Option(help="Support examples per class.")]
Query = Annotated[int, typer.Option(help="Queries per class.")]
AS_TRAINED = "as in the recipe"
WayOf = Annotated[
    Optional[int],  # noqa: UP045  (typer reads this form on every version)
    typer.Option("--way", help="Classes per task.", show_default=AS_TRAINED),
]
ShotOf = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--shot", help="Support examples per class.", show_default=AS_TRAINED),
]
QueryOf = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--query", help="Queries per class.", show_default=AS_TRAINED),
]
Run = Annotated[Path, typer.Argument(help="The folder of a `kshot train`.")]
DatasetOf = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--dataset", help="A data set; the run's own by default."),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="An option of the data set, such as size=28; repeatable."),
]
SplitName = Annotated[str, typer.Option("--split", help="train, val or test.")]
Episodes = Annotated[int, typer.Option(help="How many frozen episodes.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the episodes.")]
Transductive = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--transductive/--inductive",
        help="Batch statistics of the queries, or of the support; by default as in training.",
    ),
]
TestSteps = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, help="Inner steps at meta-test; the learner's own by default."),
]
JsonOut = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--json", help="Also write the record here."),
]

TrainSettings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="A changed setting, such as train.steps=100; repeatable."),
]
TrainSeed = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of weights and episodes."),
]
Out = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", help="The new run folder; runs/NAME-NUMBER by default."),
]
Start = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--from",
        help="Start from the encoder of a run, from a weights file, or from a pretrained network "
        "such as timm:resnet18.",
    ),
]
Resume = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--resume", help="Go on with the run in this folder; no recipe or settings beside it."
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=64, help="Processes that share each meta-batch.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="A trial of the recipe on glyphs, a few minutes long.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
