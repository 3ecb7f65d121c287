"""Tables over many records: one data set or task family, all methods."""

from __future__ import annotations

import json

from kept import RECORDS, Record, columns, is_baseline, published, read_published, tasks

from kshot.evaluation import show
from kshot.evaluation.record import with_options
from kshot.learners import learner_class
from kshot.training.config import read_recipe, recipe_names

ADAPTATION = RECORDS / "adaptation.json"


def regression(found: dict[str, Record]) -> str:
    """Every regression-capable method on sinusoids: a row each, a column for each shot."""
    shots = ("5-shot", "10-shot")
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, record in found.items():
        for r in record["results"] if name in recipe_names() else ():
            if r["source"] == "sinusoid/test" and not is_baseline(r):
                score = show(r["metric"], r["mean"], r["interval"])
                rows.setdefault((r["name"], name), {})[r["task"]] = score
    lines = [
        f"| method | {' | '.join(shots)} | meta-steps x tasks | training |",
        f"|---|{'---|' * (len(shots) + 2)}",
    ]
    for (method, name), scores in rows.items():
        record = found[name]
        batch = record["config"]["train"]["meta_batch"]
        lines.append(
            f"| {method} (`{name}`) | {' | '.join(scores.get(s, '–') for s in shots)} "
            f"| {record['meta_steps_run']:,} x {batch} | {record['training_seconds']} s |"
        )
    return "\n".join(lines)


def overview(found: dict[str, Record]) -> str:
    """Every result that a paper has published too, in one row: for a first look."""
    lines = [
        "| unseen tasks | method | inductive | transductive | published, and its protocol |",
        "|---|---|---|---|---|",
    ]
    recipes = recipe_names()
    for name, record in found.items():
        for r in record["results"] if name in recipes else ():
            if (paper := published(name, r)) != "–":
                score = f"**{show(r['metric'], r['mean'], r['interval'])}**"
                lines.append(
                    f"| {tasks(r)} | {r['name']} (`{name}`) | {columns(r, score)} | {paper} |"
                )
    return "\n".join(lines)


def benchmark(found: dict[str, Record], dataset: str) -> str:
    """Every method on a data set: a row for each of its results, grouped by way and shot."""
    papers = read_published()
    rows = []
    for name, record in found.items():
        train = record["config"]["train"]
        paper = papers.get(name, {"meta_steps": "–"})["meta_steps"]
        steps = f"{record['meta_steps_run']:,} x {train['meta_batch']}, {paper}"
        for r in record["results"] if name in recipe_names() else ():
            if r["source"] == f"{dataset}/test" and not is_baseline(r):
                where = with_options("", r.get("options", {})).strip() or "–"
                score = columns(r, show(r["metric"], r["mean"], r["interval"]))
                order = (r["spec"]["way"], r["spec"]["shot"], r["spec"]["query"], -r["mean"])
                queries = "1 query" if r["spec"]["query"] == 1 else f"{r['spec']['query']} queries"
                cells = [f"{r['task']}, {queries}", f"{r['name']} (`{name}`)", where]
                rows.append(
                    (order, f"| {' | '.join(cells)} | {score} | {published(name, r)} | {steps} |")
                )
    return "\n".join(
        [
            "| unseen tasks | method | data | inductive | transductive "
            "| published, and its protocol | meta-steps x tasks: here, paper |",
            "|---|---|---|---|---|---|---|",
            *(line for _, line in sorted(rows)),
        ]
    )


VINYALS = {"source": "omniglot/test", "protocol": "vinyals", "transductive": False}
CELLS: dict[str, Record] = {
    "Omniglot, 5-way 1-shot": VINYALS | {"task": "5-way 1-shot"},
    "Omniglot, 20-way 1-shot": VINYALS | {"task": "20-way 1-shot"},
    "CIFAR-FS, 5-way 5-shot": {
        "source": "cifar_fs/test",
        "task": "5-way 5-shot",
        "transductive": False,
    },
    "sinusoid, 10-shot": {"source": "sinusoid/test", "task": "10-shot"},
    "Omniglot, random characters, 5-way 1-shot, transductive": {
        "source": "omniglot/test",
        "protocol": "random-1200",
        "task": "5-way 1-shot",
        "transductive": True,
        "query": 1,
    },
}
"""The results by which methods are compared at a glance."""


def chooser(found: dict[str, Record]) -> str:
    """A row for each method: what it can do, what it takes, and its results."""
    times = json.loads(ADAPTATION.read_text())["seconds"] if ADAPTATION.exists() else {}
    rows: dict[str, dict[str, str]] = {}
    learner_of = {}
    for recipe in sorted(set(found).intersection(recipe_names())):
        for r in found[recipe]["results"]:
            method = str(r["name"]).split(" step")[0].rsplit(", ", "step" in r["name"])[0]
            for cell, where in CELLS.items():
                if not is_baseline(r) and in_cell(r, where):
                    # of several numbers of steps the last and largest, whatever it scored
                    rows.setdefault(method, {})[cell] = told(r, found[recipe])
                    learner_of[method] = read_recipe(recipe).learner.name
    lines = [
        f"| method | ways | a new task takes | {' | '.join(CELLS)} |",
        f"|---|{'---|' * (len(CELLS) + 2)}",
    ]
    for method, scores in sorted(rows.items()):
        name = learner_of[method]
        cls = learner_class(name)
        ways = "any" if cls.symmetric else "as trained"
        ways = ways if "classification" in cls.tasks else "regression only"
        took = f"{1000 * times[name]:.0f} ms" if name in times and ", " not in method else "–"
        cells = " | ".join(scores.get(cell, "–") for cell in CELLS)
        lines.append(f"| {method} | {ways} | {took} | {cells} |")
    return "\n".join(lines)


def in_cell(result: Record, where: Record) -> bool:
    """Whether a result is of these tasks and protocol."""
    facts = result | result.get("options", {}) | {"query": result["spec"]["query"]}
    return all(facts.get(key) == value for key, value in where.items())


def told(result: Record, run: Record) -> str:
    """The score, the inner steps behind it, and the minutes of meta-training."""
    steps = result["name"].rsplit(", ", 1)[1] + ", " if "step" in result["name"] else ""
    score = show(result["metric"], result["mean"], result["interval"])
    return f"{score} ({steps}{run['training_seconds'] / 60:.0f} min)"
