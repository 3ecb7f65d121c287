"""What fitting, predicting and starting cost, and how memory grows with the inputs.

python benchmarks/practice.py            -> benchmarks/results/practice.json
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from PIL import Image

import kshot
from kshot.evaluation.record import command, source_commit
from kshot.files import write_json

RESULTS = Path(__file__).parent / "results" / "practice.json"
REPETITIONS = 5
RUN = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
RUN += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); "
RUN += "sys.exit(code)"


def seconds(work: Callable[[], object]) -> float:
    """Median of five."""
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def ended(arguments: Sequence[str]) -> None:
    """Run a command to its end."""
    subprocess.run(arguments, check=True, capture_output=True)


def draw(folder: Path, count: int) -> None:
    """Images of letters, dark on white, as people have them."""
    letters = kshot.load("glyphs")["test"]
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = 255 - letters.x[i % len(letters.x), 0].numpy()
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{i:05}.png")


def memory(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds, and the peak memory in MiB of a command."""
    start = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], check=True, capture_output=True, text=True
    )
    peak = int(found.stderr.strip().splitlines()[-1])
    return time.perf_counter() - start, peak / 1024


def main(images: Annotated[int, typer.Option(help="To be predicted.")] = 10_000) -> None:
    """Measure and write the record."""
    kshot_command = str(Path(sys.executable).parent / "kshot")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        letters = kshot.load("glyphs")["test"]
        paths, labels = [], []
        for k, first in enumerate(letters.offsets[:5].tolist()):
            for j in range(5):
                path = root / "five" / f"class{k}" / f"{j}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(255 - letters.x[first + j, 0].numpy()).save(path)
                paths.append(path)
                labels.append(f"class{k}")
        model = root / "model.kshot"
        ended([kshot_command, "fit", str(root / "five"), "--out", str(model)])
        draw(root / "few", images // 100)
        draw(root / "many", images)
        predict = [kshot_command, "predict", str(model)]
        out = ["--csv", "--out"]
        few = memory([*predict, str(root / "few"), *out, str(root / "few.csv")])
        many = memory([*predict, str(root / "many"), *out, str(root / "many.csv")])
        rows = len((root / "many.csv").read_text().splitlines()) - 1
        if rows != images:
            raise SystemExit(f"{rows} predictions for {images} images")
        record = {
            "import_seconds": seconds(lambda: ended([sys.executable, "-c", "import kshot"])),
            "help_seconds": seconds(lambda: ended([kshot_command, "--help"])),
            "fit_seconds": seconds(lambda: kshot.FewShotClassifier().fit(paths, labels)),
            "fit_command_seconds": seconds(
                lambda: ended(
                    [kshot_command, "fit", str(root / "five"), "--out", str(root / "again.kshot")]
                )
            ),
            "images": images,
            "predict_seconds": many[0],
            "predict_mib": many[1],
            "few_images": images // 100,
            "few_mib": few[1],
        }
    write_json(
        RESULTS,
        {
            **record,
            "repetitions": REPETITIONS,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "command": command(),
            "commit": source_commit(),
        },
    )
    print(record)


if __name__ == "__main__":
    typer.run(main)
