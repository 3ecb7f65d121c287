"""Tables of what a pretrained start gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kept import RECORDS, Record, fine_tuned, protocol, tasks

from kshot.evaluation import show

PROTOCOLS = ("inductive", "transductive")


def made() -> dict[str, str]:
    """By name; nothing where there is no record yet."""
    paths = sorted(RECORDS.glob("meta-transfer-*.json"))
    compared = sorted(RECORDS.glob("compare-wordnet-*.json"))
    return {path.stem: meta_transfer(path) for path in paths} | {
        "differences on wordnet": differences(compared)
    }


def differences(paths: Sequence[Path]) -> str:
    """Paired differences by `kshot compare --json`, a row for each method and task."""
    lines = ["| same tasks | method | minus | difference in points |", "|---|---|---|---|"]
    for path in paths:
        found = json.loads(path.read_text())
        first = found["results"][0]
        lines += [
            f"| {tasks(first)}, {protocol(first)} | {d['name']} | {d['reference']} "
            f"| {100 * d['mean']:+.2f} ± {100 * d['interval']:.2f} |"
            for d in found["differences"]
        ]
    lines += [
        "",
        f"{first['episodes']:,} episodes; `{first['command']}` and so on, "
        f"commit `{first['commit']}`.",
    ]
    return "\n".join(lines)


def meta_transfer(path: Path) -> str:
    """What benchmarks/meta_transfer.py has measured: a row for each learner and start."""
    found = json.loads(path.read_text())
    shots: dict[str, Record] = found["shots"]
    scores = {
        (r["name"], shot, protocol(r)): show(r["metric"], r["mean"], r["interval"])
        for shot, record in shots.items()
        for r in record["results"]
    }
    columns = [(shot, kind) for shot in shots for kind in PROTOCOLS]
    heads = [f"{shot}-shot, {kind}" for shot, kind in columns]
    lines = [f"| learner, start | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name in sorted({name for name, _, _ in scores}):
        cells = [scores.get((name, *column), "–") for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| paired, inductive | over | difference in points |", "|---|---|---|"]
    for shot, record in shots.items():
        lines += [
            f"| {shot}-shot, {d['of']} | {d['over']} | {100 * d['difference']['mean']:+.2f} "
            f"± {100 * d['difference']['interval']:.2f} |"
            for d in record["differences"]
        ]
    tuned = [
        f"{shot}-shot: {best['rule']}, {fine_tuned(best)}"
        for shot, record in shots.items()
        for best in [max(record["tuned"]["tried"], key=lambda t: t["validation"] or 0)]
    ]
    r = next(iter(shots.values()))["results"][0]
    lines += [
        "",
        f"{tasks(r)} and so on, {r['episodes']:,} episodes. Fine-tuning as it was best on "
        f"{found['judged_by']} validation episodes: {'; '.join(tuned)}. `python benchmarks/"
        f"{found['command']}`, commit `{found['commit']}`.",
    ]
    return "\n".join(lines)
