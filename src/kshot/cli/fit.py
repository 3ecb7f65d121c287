"""`kshot fit`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from kshot.cli.evaluate import check_writable
from kshot.cli.examples import Example, labelled
from kshot.datasets.tables import number_in
from kshot.errors import ConfigError, DataError, InputError, KshotError
from kshot.estimators import FewShotClassifier, FewShotRegressor
from kshot.estimators.labels import check_label
from kshot.estimators.leave_out import leave_one_out
from kshot.estimators.model_file import ENDING
from kshot.training.config import read_settings


def fit(
    source: Path,
    out: Path,
    learner: str | None,
    encoder: str | None,
    settings: Sequence[str],
    label: str | None,
    columns: Sequence[str] | None,
    values: bool,
    false_accepts: float | None,
    device: str,
) -> None:
    """Fit a model to a folder or table, say how good it seems, and write it to a file."""
    console = Console(highlight=False, soft_wrap=True)
    if out.suffix != ENDING:
        raise ConfigError(f"--out {out}: models are {ENDING} files, such as model{ENDING}.")
    check_writable(out, source, *([Path(learner)] if learner else []))
    options = read_settings(settings)
    if others := options.keys() - {"learner", "encoder"}:
        raise ConfigError(
            f"--set {min(others)}: say whose option it is, such as learner.penalty=0.1 or "
            "encoder.size=96."
        )
    chosen = [
        _with_options("learner", learner, options),
        _with_options("encoder", encoder, options),
    ]
    examples = labelled(source, label, columns)
    x = [example.value for example in examples]
    if values:
        if false_accepts is not None:
            raise ConfigError("--false-accepts is for classes, not for --values.")
        model: Any = FewShotRegressor(*chosen, standardize=True, device=device)
        y: list[Any] = [_value(example) for example in examples]
    else:
        model = FewShotClassifier(
            *chosen,
            standardize=True,
            calibrate=True,
            false_accepts=false_accepts,
            device=device,
        )
        y = [_label(example) for example in examples]
        if len(set(y)) < 2:
            raise DataError(f"{source} has 1 class, {y[0]!r}: give examples of at least 2 classes.")
    try:
        model.fit(x, y)
    except KshotError:
        raise
    except ValueError as error:  # scikit-learn's, of vectors
        raise DataError(f"{source}: {str(error).splitlines()[0]}") from error
    model.name_columns(examples[0].columns)
    if model.columns_ and model.ready_.form.kind == "vectors":
        names = [example.name for example in examples]
        model.support_ = replace(model.support_, names=names)
    model.save(out)
    if values:
        console.print(f"{len(x)} examples with values from {min(y):g} to {max(y):g}")
    else:
        counts = Counter(y)
        shown = [f"{name} ({count})" for name, count in list(counts.items())[:12]]
        more = f" and {len(counts) - 12} more" if len(counts) > 12 else ""
        console.print(
            f"{len(counts)} classes: {', '.join(shown)}{more}", markup=False, soft_wrap=True
        )
        if model.choice_ is not None:
            console.print(f"Chosen: {model.choice_.reason}.", markup=False)
        console.print(_estimate(model, counts), markup=False)
    console.print(
        f"Model: {out} ({size_of(out)})\nUse it: kshot predict {shlex.quote(str(out))} INPUTS...",
        markup=False,
        soft_wrap=True,
    )


def _with_options(kind: str, name: str | None, options: dict[str, Any]) -> Any:
    own = options.get(kind, {})
    if own and name is None:
        raise ConfigError(f"--set {kind}.{next(iter(own))}: name the {kind} by --{kind}.")
    return {"name": name, **own} if own else name


def _label(example: Example) -> str:
    """The label as a text; 1 and 1.0 are one label."""
    label = example.label
    if not isinstance(label, str) and number_in(label) is None:
        raise DataError(
            f"{example.name}: the label {label!r:.40} is neither a text nor a finite number."
        )
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    try:
        check_label(str(label))
    except InputError as error:
        raise DataError(f"{example.name}: {error}") from error
    return str(label)


def _value(example: Example) -> float:
    if (found := number_in(example.label)) is None:
        raise DataError(f"{example.name}: the value {example.label!r:.40} is no number.")
    return found


def _estimate(model: FewShotClassifier, counts: Counter[str]) -> str:
    """How good the model seems, by leaving out each example in turn."""
    rows, answers = leave_one_out(model.behind, model.support_.features, model.labels_, len(counts))
    count = len(rows)
    if not count:
        return "One example of each class: how good it is cannot be told without others."
    right = int((answers.argmax(1) == model.labels_[rows]).sum())
    doubt = ", which is few to judge by." if count < 30 else "."
    return f"Left out in turn, {right} of {count} examples are recognised by the others{doubt}"


def size_of(path: Path) -> str:
    """Of a file, in words."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.0f} kB"
