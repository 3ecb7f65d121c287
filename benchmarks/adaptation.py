"""Measure how long each method takes for a new task: python benchmarks/adaptation.py

A 5-way 5-shot task of glyphs, fitted and asked 75 queries, by untrained learners with the same
Conv4 of 64 filters and their papers' steps, on one core, inductively but for TIM. Interleaved; the
median over the tasks counts. Needs a quiet machine; takes about two minutes. Writes
benchmarks/results/adaptation.json.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

import kshot
from kshot.evaluation.record import source_commit, versions
from kshot.files import write_json
from kshot.learners import MetaLearner, TaskShape, build_learner
from kshot.types import unlabelled

RESULTS = Path(__file__).parent / "results"
TASKS = 15
OPTIONS: dict[str, dict[str, Any]] = {
    "protonet": {},
    "matching": {},
    "r2d2": {},
    "snail": {},
    "tim": {},
    "anil": {"inner_steps": 5, "test_steps": 10, "normalization": "support"},
    "maml": {"inner_steps": 5, "test_steps": 10, "normalization": "support"},
    "meta_lstm": {"inner_steps": 8},
    "reptile": {"test_steps": 50, "test_batch": 15, "normalization": "single"},
}


def seconds(learner: MetaLearner, episode: kshot.Episode) -> float:
    """For one task, from its support set to the answers."""
    start = time.perf_counter()
    asked = unlabelled(episode.query.x) if learner.head.transductive else None
    with torch.no_grad():
        learner.adapt(episode.support, asked, key=episode.key)(episode.query.x)
    return time.perf_counter() - start


def main() -> None:
    """Measure all and keep the record."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    split = kshot.load("glyphs")["test"]
    spec = kshot.EpisodeSpec(way=5, shot=5)
    shape = TaskShape(x_shape=(1, 28, 28), way=5, length=25)
    learners = {
        name: build_learner(name, kshot.nn.Conv4(), shape, options).eval()
        for name, options in OPTIONS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in learners}
    for i in track(range(TASKS + 1), description="tasks"):
        for name, learner in learners.items():
            taken = seconds(learner, kshot.draw(split, spec, 0, [i]))
            if i:  # the first task warms everything up
                times[name].append(taken)
    record = {
        "command": "python benchmarks/adaptation.py",
        "commit": source_commit(),
        "versions": versions(),
        "tasks": TASKS,
        "options": OPTIONS,
        "seconds": {name: statistics.median(taken) for name, taken in times.items()},
    }
    write_json(RESULTS / "adaptation.json", record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
