"""What the records and the papers say, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kshot.evaluation.record import with_options

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "benchmarks" / "results"
PUBLISHED = ROOT / "benchmarks" / "published.json"

Record = dict[str, Any]


def records() -> dict[str, Record]:
    """All records of runs by name."""
    found = {p.stem: json.loads(p.read_text()) for p in sorted(RECORDS.glob("*.json"))}
    runs = {
        name: record for name, record in found.items() if {"config", "results"} <= record.keys()
    }
    for record in runs.values():
        data = record["config"]["dataset"]
        for r in record["results"]:
            if "options" not in r and r["source"].startswith(f"{data['name']}/"):
                # the first records tell them in the recipe alone, and leave defaults away
                pixels = {"resize": "nearest", "size": 28} if data["name"] == "omniglot" else {}
                given = {k: v for k, v in data.items() if k != "name"}
                r["options"] = {k: given.get(k, pixels.get(k)) for k in given | pixels}
    return runs


def tasks(result: Record) -> str:
    """Data set, split, options, way, shot and queries, as people read them."""
    query = result["spec"]["query"]
    where = with_options(result["source"], result.get("options", {}))
    return f"{where}, {result['task']}, {query} {'query' if query == 1 else 'queries'}"


def protocol(result: Record) -> str:
    """`transductive` or `inductive`."""
    return "transductive" if result["transductive"] else "inductive"


def columns(result: Record, score: str) -> str:
    """The score in the column of its protocol, the first one being the inductive."""
    return f"– | {score}" if result["transductive"] else f"{score} | –"


def published(name: str, result: Record) -> str:
    """The paper's value for this very result, and how it was measured."""
    for entry in read_published().get(name, {"results": []})["results"]:
        facts = result | {"query": result["spec"]["query"]}
        if all(facts[key] == value for key, value in entry.items() if key in facts):
            return f"{entry['value']} ({entry['protocol']})"
    return "–"


def read_published() -> dict[str, Record]:
    """What the papers report, by recipe: the results and the meta-steps behind them."""
    papers: dict[str, Record] = json.loads(PUBLISHED.read_text())
    return papers


def is_baseline(result: Record) -> bool:
    """Whether it is what stands below a learner in every table."""
    return str(result["name"]).startswith(("untrained", "pretrained", "1-NN"))


def listed(numbers: int | list[int]) -> str:
    """One number, or several with commas."""
    return ", ".join(map(str, numbers)) if isinstance(numbers, list) else str(numbers)


def fine_tuned(setting: Record) -> str:
    """How a rival was fine-tuned."""
    words = (
        f"rate {setting['lr']:g}, {setting['steps']} steps, {setting['fast']}, "
        f"normalisation {setting['normalization']}"
    )
    changes = setting.get("augment")
    return f"{words}, images changed by {' and '.join(changes)}" if changes else words
