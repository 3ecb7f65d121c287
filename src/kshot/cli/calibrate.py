"""`kshot calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from kshot.cli.evaluate import check_picture, check_writable, chosen_data, progress_bar
from kshot.datasets import Mixture, Split
from kshot.errors import ConfigError
from kshot.evaluation import as_protocol
from kshot.evaluation.calibration import FILE, Answers, Calibration, answers, check_spot
from kshot.evaluation.calibration import calibrate as measure
from kshot.evaluation.confidence import familiarity, reliability
from kshot.evaluation.embedding import embedded, evaluating
from kshot.evaluation.protocol import seen_classes
from kshot.evaluation.record import command, source_commit
from kshot.evaluation.reliability import reliability_diagram
from kshot.evaluation.report import save_figure
from kshot.files import write_json
from kshot.training import load_run
from kshot.training.build import load_data, pick_device
from kshot.training.lineage import lineage

SHARES = (0.01, 0.05, 0.1)
"""Of strangers that may pass, in the table."""


def calibrate(
    folder: Path,
    dataset: str | None,
    settings: Sequence[str],
    way: int,
    shot: int,
    episodes: int,
    json_out: Path | None,
    picture: Path | None,
    device: str,
) -> None:
    """Measure on meta-validation, keep it in the run folder, and test it on meta-test."""
    console = Console(highlight=False, soft_wrap=True)
    check_writable(json_out)
    if picture is not None:
        check_picture(picture)
    run = load_run(folder)
    # As FewShotClassifier asks it: one query does not change the answer to another.
    learner = as_protocol(run.learner.to(pick_device(device)), False)
    data, tested = load_data(run.config), chosen_data(run, dataset, settings)
    source, test = data.splits.get("val"), tested.splits.get("test")
    if not isinstance(source, (Split, Mixture)) or not isinstance(test, (Split, Mixture)):
        raise ConfigError(
            f"a calibration needs classes in a split 'val' of {data.name}, to be measured on, and "
            f"in 'test' of {tested.name}, to be tested on."
        )
    if seen_classes(lineage(run.config).sources, source):
        raise ConfigError(
            f"{folder} was trained on classes of 'val' (train.split = {run.config.train.split}, or "
            "that of the run that it started from): calibrate one of --set train.split=train."
        )
    widest = None if learner.any_way else run.shape.way
    check_spot(test, way, shot, widest)
    with progress_bar() as bar:
        task = bar.add_task("meta-validation")
        found = measure(
            learner,
            source,
            widest=widest,
            progress=lambda n, of: bar.update(task, completed=n, total=of),
        )
        write_json(folder / FILE, {**found.as_dict(), "meta_steps": run.meta_steps})
        bar.add_task("meta-test", total=None)
        with evaluating(learner):
            learner, features = embedded(learner, test)
        seen = answers(learner, features, way, shot, query=15, episodes=episodes)
    record = {
        **_tested(found, seen, way, shot),
        "run": run.config.name,
        "meta_steps": run.meta_steps,
        "measured_on": source.name,
        "tested_on": test.name,
        "options": dict(test.options),
        "episodes": episodes,
        "command": command(),
        "commit": source_commit(),
    }
    _show(console, record)
    console.print(f"Calibration: {folder / FILE}, which kshot fit --learner {folder} uses")
    if json_out is not None:
        write_json(json_out, record)
        console.print(f"Record: {json_out}")
    if picture is not None:
        spot = found.at(way, shot)
        save_figure(
            reliability_diagram(
                {
                    "as it is": reliability(seen.known, seen.labels),
                    "calibrated": reliability(seen.known, seen.labels, spot.temperature),
                },
                f"{run.config.name} on {test.name}, {way}-way {shot}-shot",
            ),
            picture,
        )
        console.print(f"Picture: {picture}")


def _tested(found: Calibration, seen: Answers, way: int, shot: int) -> dict[str, Any]:
    """What the calibration says of episodes that it was not measured on."""
    spot = found.at(way, shot)
    known, strangers = (familiarity(z).numpy() for z in (seen.known, seen.strangers))
    thresholds = [spot.threshold(share) for share in SHARES]
    refused = float(np.quantile(known, 0.05))
    return {
        "way": way,
        "shot": shot,
        "temperature": spot.temperature,
        "accuracy": float((seen.known.argmax(-1) == seen.labels).double().mean()),
        "error_before": reliability(seen.known, seen.labels).error,
        "error_after": reliability(seen.known, seen.labels, spot.temperature).error,
        "strangers": [
            {
                "false_accepts_asked": share,
                "false_accepts": float((strangers >= threshold).mean()),
                "false_rejects": float((known < threshold).mean()),
            }
            for share, threshold in zip(SHARES, thresholds, strict=True)
        ],
        "strangers_found_at_5_percent_false_rejects": float((strangers < refused).mean()),
    }


def _show(console: Console, record: dict[str, Any]) -> None:
    console.print(
        f"{record['tested_on']}, {record['way']}-way {record['shot']}-shot, "
        f"{record['episodes']:,} episodes: accuracy {record['accuracy']:.1%}\n"
        f"Expected calibration error: {record['error_before']:.3f} as it is, "
        f"{record['error_after']:.3f} at temperature {record['temperature']:.3g}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("strangers that may pass", "that pass", "known ones refused"):
        table.add_column(column, justify="right")
    for row in record["strangers"]:
        table.add_row(
            f"{row['false_accepts_asked']:.0%}",
            f"{row['false_accepts']:.1%}",
            f"{row['false_rejects']:.1%}",
        )
    console.print(table)
    share = record["strangers_found_at_5_percent_false_rejects"]
    console.print(f"Where 5 % of the known ones are refused, {share:.1%} of strangers are found.")
