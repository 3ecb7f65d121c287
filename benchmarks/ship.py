"""Put what two recipes have made into the package.

python benchmarks/ship.py RUN

A run of `characters` becomes, with its calibration, src/kshot/shipped/characters.kshot; the head of
a run of `set-metric-tables` becomes src/kshot/shipped/set_metric.safetensors.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import typer
from safetensors.torch import save_file

import kshot
from kshot.estimators.model_file import CHARACTERS, shipped_learner, write_model
from kshot.estimators.ready import SHIPPED, of_run
from kshot.evaluation.calibration import calibrate
from kshot.training import load_run
from kshot.training.build import load_data
from kshot.training.run import Run


def ship_characters(run: Run) -> Path:
    """Measure its confidence on meta-validation and write the file."""
    measured = calibrate(run.learner, load_data(run.config)["val"], episodes=300)
    origin = {
        "learner": CHARACTERS,
        "trained on": "glyphs, letters rendered from the fonts that matplotlib ships",
        "recipe": run.config.name,
        "meta-steps": str(run.meta_steps),
        "licence": "Apache-2.0, as kshot",
    }
    ready = replace(of_run(run), calibration=measured, origin=origin)
    path = shipped_learner(CHARACTERS)
    write_model(path, ready, {"calibration": measured.as_dict()}, {})
    return path


def ship_set_metric(run: Run) -> Path:
    """Write the weights of the head."""
    path = Path(str(files("kshot"))) / SHIPPED["set_metric"]
    about = {"recipe": run.config.name, "meta-steps": str(run.meta_steps)}
    save_file(run.learner.head.state_dict(), path, metadata=about)
    return path


def main(folder: Path) -> None:
    """Write the file of the run's learner."""
    run = load_run(folder)
    set_metric = isinstance(run.learner, kshot.SetMetric)
    path = (ship_set_metric if set_metric else ship_characters)(run)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
