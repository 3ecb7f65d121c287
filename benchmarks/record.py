"""Keep the record of a run, or of the runs that chose a recipe's settings on meta-validation.

python benchmarks/record.py RUN NAME                     -> benchmarks/results/NAME.json
                                                            (RUN: also a folder of several seeds)
python benchmarks/record.py --selection RECIPE RUN ...   -> benchmarks/selection/RECIPE.json
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kshot.cli.evaluate import load_runs
from kshot.files import write_json
from kshot.training.config import RunConfig, read_recipe
from kshot.training.run import read_config

HERE = Path(__file__).parent


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run; none of one that took no step."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def record(run: str, name: str) -> None:
    """Write what the run folder says, without the weights."""
    folder = Path(run)
    loaded = load_runs(folder)
    metrics = [rows_of(one.folder) for one in loaded]
    written = {
        "name": name,
        "config": loaded[0].config.model_dump(mode="json"),
        "meta_steps_run": max(rows[-1]["step"] if rows else 0 for rows in metrics),
        "meta_steps_kept": [one.meta_steps for one in loaded],
        "training_seconds": round(sum(rows[-1]["seconds"] for rows in metrics if rows)),
        "processor": platform.machine(),
        "validation": [
            [row for row in rows if row["validation"] is not None][-30:] for rows in metrics
        ],
        "results": json.loads((folder / "results.json").read_text()),
    }
    write_json(HERE / "results" / f"{name}.json", written)


def selection(recipe: str, runs: Sequence[str]) -> None:
    """Write each run's validation scores, and where its settings differ from the recipe's."""
    chosen = _flat(read_recipe(recipe))
    tried = []
    for run in runs:
        config = read_config(Path(run))
        ours = _flat(config)
        judged = [r for r in rows_of(Path(run)) if r["validation"] is not None]
        tried.append(
            {
                "settings": {k: v for k, v in ours.items() if v != chosen.get(k)}
                | {k: None for k in chosen if k not in ours},
                "episodes": config.validation.spec.describe(),
                "count": config.validation.episodes,
                "validation": [[r["step"], r["validation"], r["interval"]] for r in judged],
            }
        )
    write_json(HERE / "selection" / f"{recipe}.json", {"recipe": recipe, "tried": tried})


def _flat(config: RunConfig) -> dict[str, Any]:
    """Data, encoder, learner and training settings by dotted name."""
    sections = config.model_dump(mode="json", include={"dataset", "encoder", "learner", "train"})
    return {f"{part}.{k}": v for part, values in sections.items() for k, v in values.items()}


if __name__ == "__main__":
    if sys.argv[1] == "--selection":
        selection(sys.argv[2], sys.argv[3:])
    else:
        record(*sys.argv[1:])
