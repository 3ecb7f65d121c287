"""`kshot predict`."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kshot.cli.evaluate import check_writable
from kshot.cli.examples import Example, unlabelled
from kshot.datasets.images import is_image
from kshot.datasets.tables import is_table
from kshot.errors import ConfigError, DataError, KshotError
from kshot.estimators import FewShotClassifier, FewShotRegressor, load_model
from kshot.estimators.model_file import ENDING
from kshot.files import atomic

CHUNK = 256
"""Examples in memory at once."""

Model = FewShotClassifier | FewShotRegressor
Write = Callable[[dict[str, Any]], None]


def predict(
    path: Path,
    sources: Sequence[str],
    label: str | None,
    columns: Sequence[str] | None,
    form: str,
    out: Path | None,
    device: str,
) -> int:
    """Answer every input, one line each; how many could not be used.

    Args:
        path: of the model.
        sources: images, folders and tables.
        label: a column of tables to be left aside.
        columns: of tables.
        form: `text`, `json` or `csv`.
        out: a file in the place of standard output.
        device: by name.
    """
    check_writable(out, path, *map(Path, sources))
    if out is not None and (is_image(out.name) or out.suffix == ENDING):
        raise ConfigError(f"--out {out}: answers are text: name a .csv, .jsonl or .txt file.")
    if (label or columns) and not any(is_table(Path(source)) for source in sources):
        raise ConfigError(f"--label and --column are for tables, but {sources[0]} is none.")
    model = load_model(path, device=device)
    kind = model.ready_.form.kind
    if columns and sorted(columns) == sorted(model.columns_):
        columns = model.columns_  # by their names, in whatever order they are told
    examples = unlabelled(sources, label, columns or model.columns_ or None, kind)
    failed = 0
    with ExitStack() as stack:
        stream: TextIO = sys.stdout
        if out is not None:
            stream = stack.enter_context(
                stack.enter_context(atomic(out)).open(
                    "w", encoding="utf-8", errors="backslashreplace"
                )
            )
        bar = stack.enter_context(_progress())
        task = bar.add_task("predicting", total=None)
        write = _writer(form, stream, model)
        while chunk := list(islice(examples, CHUNK)):
            for answer in _answers(model, chunk):
                write(answer)
                failed += "error" in answer
            stream.flush()
            if not getattr(stream, "read", True):  # as after `| head`
                break
            bar.update(task, advance=len(chunk))
    return failed


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _answers(model: Model, chunk: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """The answer to each example; where one of them cannot be used, each by itself."""
    try:
        with warnings.catch_warnings():
            # The columns were chosen by their names.
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            answers = _judged(model, chunk)
        yield from answers
        return
    except (KshotError, ValueError) as error:
        if len(chunk) == 1:
            message = str(error).splitlines()[0].removeprefix(f"{str(chunk[0].value)!r} ")
            # What is wrong with a row says itself where it stands.
            where = "" if isinstance(chunk[0].value, DataError) else f"{chunk[0].name}: "
            typer.secho(f"{where}{message}", err=True, fg=typer.colors.RED)
            yield {"input": chunk[0].name, "error": message}
            return
    for example in chunk:
        yield from _answers(model, [example])


def _judged(model: Model, chunk: Sequence[Example]) -> list[dict[str, Any]]:
    for example in chunk:
        if isinstance(example.value, DataError):
            raise example.value
    x = [example.value for example in chunk]
    if isinstance(model, FewShotRegressor):
        values = model.predict(x).tolist()
        return [{"input": e.name, "value": v} for e, v in zip(chunk, values, strict=True)]
    judged = model.judge(x)
    names = [str(c) for c in model.classes_.tolist()]
    return [
        {
            "input": example.name,
            "label": label,
            "probability": round(float(row.max()), 6),
            "known": bool(known),
            "probabilities": dict(zip(names, row.round(6).tolist(), strict=True)),
        }
        for example, label, row, known in zip(
            chunk, judged.labels.tolist(), judged.probabilities, judged.known, strict=True
        )
    ]


def _writer(form: str, stream: TextIO, model: Model) -> Write:
    if form == "json":
        return lambda answer: print(json.dumps(answer, ensure_ascii=False), file=stream)
    if form == "csv":
        return _csv_writer(stream, model)
    return lambda answer: _line(answer, stream)


def _csv_writer(stream: TextIO, model: Model) -> Write:
    values = isinstance(model, FewShotRegressor)
    names = ["input", "value"] if values else ["input", "label", "probability", "known"]
    writer = csv.DictWriter(stream, [*names, "error"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    return writer.writerow


def _line(answer: dict[str, Any], stream: TextIO) -> None:
    if "error" in answer:
        return
    if "value" in answer:
        print(f"{answer['input']}\t{answer['value']}", file=stream)
    else:
        sure = f"{answer['probability']:.1%}" if answer["known"] else ""
        print(f"{answer['input']}\t{answer['label']}\t{sure}".rstrip(), file=stream)
