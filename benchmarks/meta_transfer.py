"""Learners from scratch and from a pretrained start, and tuned fine-tuning, on the same episodes.

python benchmarks/meta_transfer.py FOLDER    -> benchmarks/results/meta-transfer-DATASET.json

FOLDER holds runs on one data set: `pretrained` (of `kshot pretrain`), and LEARNER-START-SHOT, such
as mtl-pretrained-1 (`kshot train --from pretrained`) and mtl-scratch-1; mtl-plain-1 is MTL from the
pretrained start without hard tasks. A run without -SHOT is scored at every shot.
Fine-tuning starts from `pretrained`; its rate, steps, part, rule, normalisation and augmentation
are tuned on meta-validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rivals import RULES, Start, Tuning, supervised
from torch import nn

import kshot
from kshot.evaluation import paired_difference
from kshot.evaluation.protocol import as_protocol
from kshot.evaluation.record import Result, command, source_commit
from kshot.files import write_json
from kshot.training.build import load_data
from kshot.training.run import Run, load_run

RESULTS = Path(__file__).parent / "results"
PRETRAINED, TUNED = "pretrained", "tuned fine-tuning"
SHOTS = (1, 5)
AUGMENT = ("crop", "flip")
"""Of the support in fine-tuning, as in meta-training; none is tried too."""

STEPS, MORE_STEPS = 10, (20, 40, 80)
"""Of fine-tuning: each rate with the first number, the best ones with the others."""


def runs_in(folder: Path, shot: int) -> dict[str, Run]:
    """The runs that are scored at so many shots, by LEARNER-START."""
    found = {}
    for path in sorted(folder.iterdir()):
        name, _, own = path.name.rpartition("-")
        if path.name != PRETRAINED and (path / "run.json").exists():
            if not own.isdigit():
                found[path.name] = load_run(path)
            elif int(own) == shot:
                found[name] = load_run(path)
    return found


def fine_tuned(pretrained: Run, val: Any, task: Mapping[str, int], judged_by: int) -> Tuning:
    """The better of SGD and Adam, each tuned; of all weights and of the last layer alone."""
    with torch.no_grad():
        features = pretrained.learner.body(torch.zeros(1, *pretrained.shape.x_shape)).shape[1]
    net = supervised(pretrained, nn.Sequential(nn.Linear(features, task["way"])))
    names = [name for name, _ in net.named_parameters()]
    fast = {"all weights": names, "last layer": [n for n in names if n.startswith("1.")]}
    start = Start(PRETRAINED, net, fast, ("support", "frozen"), ((), AUGMENT))

    def score(learner: nn.Module) -> Result:
        return kshot.evaluate(learner, val, **task, episodes=judged_by)

    tunings = [Tuning(start, rule, score) for rule in RULES]
    for tuning in tunings:
        tuning.rates(STEPS)
        tuning.more_steps(MORE_STEPS)
    return max(tunings, key=lambda t: t.tried[t.best])


def differences(found: Mapping[str, Result]) -> list[dict[str, Any]]:
    """MTL over its rivals, and every learner from the pretrained start over itself from scratch."""
    pairs = [("mtl-pretrained", other) for other in (TUNED, "mtl-plain")]
    pairs += [
        (name, name.replace(PRETRAINED, "scratch")) for name in found if name.endswith(PRETRAINED)
    ]
    return [
        {
            "of": one,
            "over": other,
            "difference": paired_difference(found[one], found[other]).as_dict(),
        }
        for one, other in pairs
        if one in found and other in found
    ]


def main(
    folder: Path,
    episodes: Annotated[int, typer.Option(help="On test.")] = 1000,
    judged_by: Annotated[int, typer.Option(help="Validation episodes.")] = 50,
) -> None:
    """Tune fine-tuning on meta-validation, score all on the same test episodes, keep the record."""
    pretrained = load_run(folder / PRETRAINED)
    data = load_data(pretrained.config)
    shots: dict[str, Any] = {}
    for shot in SHOTS:
        task = {"way": 5, "shot": shot, "query": 15}
        runs = runs_in(folder, shot)
        for run in runs.values():
            if run.config.datasets != pretrained.config.datasets:
                raise SystemExit(f"{run.folder} was not trained on the data of {folder}/pretrained")
        tuning = fine_tuned(pretrained, data["val"], task, judged_by)
        learners = {name: run.learner for name, run in runs.items()}
        learners[TUNED] = tuning.start.tuned_by(tuning.best)
        scores: dict[bool, dict[str, Result]] = {False: {}, True: {}}
        for name, learner in learners.items():
            for protocol in {False, learner.transductive}:
                scores[protocol][name] = kshot.evaluate(
                    as_protocol(learner, protocol),
                    data["test"],
                    **task,
                    episodes=episodes,
                    name=name,
                )
            print(f"{shot}-shot, {name}: {scores[False][name]}")
        shots[str(shot)] = {
            "results": [r.as_dict() for rows in scores.values() for r in rows.values()],
            "differences": differences(scores[False]),
            "tuned": {"rule": tuning.best.rule, "tried": tuning.ranking()},
            "runs": {
                name: {
                    "config": run.config.model_dump(mode="json"),
                    "meta_steps": run.meta_steps,
                }
                for name, run in runs.items()
            },
        }
    name = pretrained.config.dataset.name
    write_json(
        RESULTS / f"meta-transfer-{name}.json",
        {
            "dataset": name,
            "pretrained": pretrained.config.model_dump(mode="json"),
            "judged_by": judged_by,
            "shots": shots,
            "command": command(),
            "commit": source_commit(),
        },
    )


if __name__ == "__main__":
    typer.run(main)
