"""Put the character learner of a run, with its calibration, into the package.

python benchmarks/ship.py RUN             -> src/kshot/shipped/characters.kshot
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from kshot.estimators.model_file import CHARACTERS, shipped_learner, write_model
from kshot.estimators.ready import of_run
from kshot.evaluation.calibration import calibrate
from kshot.training import load_run
from kshot.training.build import load_data


def main(folder: Path) -> None:
    """Measure its confidence on meta-validation and write the file."""
    run = load_run(folder)
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
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
