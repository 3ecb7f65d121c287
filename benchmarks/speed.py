"""Measure speed and memory of the command line: python benchmarks/speed.py

Needs KSHOT_DATA and a quiet machine; takes about ten minutes. Ratios are medians over interleaved
repetitions. Writes benchmarks/results/speed.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kshot.evaluation.record import source_commit, versions
from kshot.files import write_json

RESULTS = Path(__file__).parent / "results"
REPETITIONS = 5
ENGINES = ("vmap", "loop")
KSHOT = [sys.executable, "-m", "kshot"]
NO_TEST = ["--set=evaluation=[]", "--set=validation.episodes=2", "--quiet"]


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (GiB, of the largest process) of a kshot command."""
    start = time.perf_counter()
    process = subprocess.Popen([*KSHOT, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"kshot {' '.join(arguments)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def seconds_per_step(folder: Path, name: str, *arguments: str) -> float:
    """Of meta-training alone, the first steps left out."""
    steps = ["--set=train.steps=60", "--set=validation.every=60"]
    run(folder, "train", *arguments, *steps, *NO_TEST, "--out", name)
    rows = [json.loads(x) for x in (folder / name / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[9], rows[-2]
    return (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


def workers(folder: Path) -> dict[str, dict[str, float]]:
    """The MAML recipe by both engines: one process with two threads against two with one."""
    times: dict[str, list[float]] = {f"{e} {w}": [] for e in ENGINES for w in (1, 2)}
    for i in range(REPETITIONS):
        for engine in ENGINES:
            by = f"--set=learner.engine={engine}"
            for count in (1, 2):
                arguments = ["maml-omniglot", by, "--workers", str(count)]
                seconds = seconds_per_step(folder, f"{engine}-{count}-{i}", *arguments)
                times[f"{engine} {count}"].append(seconds)
    return {
        engine: {
            "seconds_one_process": statistics.median(times[f"{engine} 1"]),
            "seconds_two_workers": statistics.median(times[f"{engine} 2"]),
            "ratio": ratio(times[f"{engine} 1"], times[f"{engine} 2"]),
            "ratio_to_loop": ratio(times["loop 1"], times[f"{engine} 1"]),
        }
        for engine in ENGINES
    }


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the repetitions."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def evaluation(folder: Path) -> dict[str, float]:
    """From a saved run, cold start to table: 10,000 episodes of 20-way 1-shot on Omniglot."""
    quick = ["--set=train.steps=3", "--set=validation.every=3"]
    run(folder, "train", "protonet-omniglot", *quick, *NO_TEST, "--out", "saved")
    command = ["evaluate", "saved", "--way", "20", "--episodes", "10000"]
    return {"seconds": statistics.median(run(folder, *command)[0] for _ in range(REPETITIONS))}


def memory(folder: Path, recipe: str) -> dict[str, float]:
    """Peak of a training, its report included."""
    short = ["--set=train.steps=20", "--set=validation.every=10", "--set=validation.episodes=200"]
    few = "--set=evaluation=[{episodes=1000}]"
    return {"peak_gib": run(folder, "train", recipe, *short, few, "--quiet", "--out", recipe)[1]}


def main() -> None:
    """Measure everything and keep the record."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = {
            "command": "python benchmarks/speed.py",
            "commit": source_commit(),
            "versions": versions(),
            "cores": os.cpu_count(),
            "repetitions": REPETITIONS,
            "workers": workers(folder),
            "evaluation": evaluation(folder),
            "memory": {r: memory(folder, r) for r in ("protonet-omniglot", "protonet-cifar-fs")},
        }
    write_json(RESULTS / "speed.json", record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
