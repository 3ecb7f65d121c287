"""Write every table of README and docs/results.md from the records.

python benchmarks/tables.py           writes them
python benchmarks/tables.py --check   fails where a file differs from what the records say
"""

from __future__ import annotations

import json
import sys

from kept import (
    RECORDS,
    ROOT,
    Record,
    columns,
    fine_tuned,
    is_baseline,
    listed,
    protocol,
    published,
    records,
    tasks,
)
from overviews import benchmark, chooser, overview, regression
from practice_tables import made as made_of_practice
from transfer_tables import made as made_of_transfer

from kshot.evaluation import show
from kshot.learners import docstring_sections, learner_class, learner_names
from kshot.training.config import read_recipe, recipe_names

SELECTION = ROOT / "benchmarks" / "selection"
SPEED = RECORDS / "speed.json"
START, END = "<!-- table: {} -->", "<!-- end of table -->"
PAGES = [
    *(
        ROOT / name
        for name in (
            "README.md",
            "README.zh-CN.md",
            "docs/practice.md",
            "docs/results.md",
            "docs/which-method.md",
        )
    ),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
]


def speed() -> dict[str, str]:
    """What benchmarks/speed.py has measured, in words."""
    if not SPEED.exists():
        return {}
    s = json.loads(SPEED.read_text())
    lines = [
        "| what | measured |",
        "|---|---|",
        *(
            "| `--workers 2` against one process with two threads, a step of `maml-omniglot` by "
            f"the engine `{engine}` | {t['ratio']:.2f} times as fast "
            f"({t['seconds_two_workers']:.3f} against {t['seconds_one_process']:.3f} s) |"
            for engine, t in s["workers"].items()
        ),
        "| the engine `vmap` against `loop`, a Python loop over the tasks, in one process with two "
        f"threads | {s['workers']['vmap']['ratio_to_loop']:.2f} times as fast |",
        "| a saved run, cold start to table: 10,000 episodes of 20-way 1-shot on Omniglot, beside "
        f"1-NN | {s['evaluation']['seconds']:.0f} s |",
    ]
    lines += [
        f"| peak memory of `kshot train {recipe}` | {m['peak_gib']:.2f} GiB |"
        for recipe, m in s["memory"].items()
    ]
    lines += [
        "",
        f"`{s['command']}`: medians of {s['repetitions']} interleaved repetitions, "
        f"{s['cores']} cores; commit `{s['commit']}`; torch {s['versions']['torch']}.",
    ]
    return {"speed": "\n".join(lines)}


def selections() -> dict[str, str]:
    """What was tried on meta-validation before a recipe's final run."""
    texts = {}
    for path in sorted(SELECTION.glob("*.json")):
        lines = ["| settings other than the recipe's | steps | validation |", "|---|---|---|"]
        for run in json.loads(path.read_text())["tried"]:
            step, score, interval = run["validation"][-1]
            other = (
                ", ".join(
                    f"`{k}` {'default' if v is None else v}" for k, v in run["settings"].items()
                )
                or "none"
            )
            shown = show("accuracy", score, interval)
            lines.append(f"| {other} | {step} | {shown} ({run['count']} {run['episodes']}) |")
        texts[f"selection {path.stem}"] = "\n".join(lines)
    return texts


def rivals() -> dict[str, str]:
    """What benchmarks/rivals.py has measured: a learned rule against tuned ones, paired."""
    texts = {}
    for path in sorted(RECORDS.glob("rivals-*.json")):
        found = json.loads(path.read_text())
        ours = found["learner"]
        lines = [
            "| on the same tasks | chosen on meta-validation | score | Meta-LSTM minus this |",
            "|---|---|---|---|",
            f"| **{ours['name']}**, {found['steps']} steps | – "
            f"| **{show(ours['metric'], ours['mean'], ours['interval'])}** | – |",
        ]
        for rival in found["rivals"]:
            s, r, d = rival["setting"], rival["result"], rival["difference"]
            score = show(r["metric"], r["mean"], r["interval"])
            lines.append(
                f"| {r['name']} | {fine_tuned(s)} | {score} "
                f"| {100 * d['mean']:+.2f} ± {100 * d['interval']:.2f} |"
            )
        lines += [
            "",
            f"{tasks(ours)}, {protocol(ours)}, {ours['episodes']} episodes "
            f"(`{ours['episode_hash']}`); `{ours['command']}`, commit `{ours['commit']}`; each "
            f"setting was judged on {found['judged_by']} validation episodes.",
        ]
        texts[path.stem] = "\n".join(lines)
    return texts


def summary(record: Record) -> str:
    """A row for each kind of tasks, a column for each method and protocol: for a first look."""
    rows = record["results"]
    methods = list(dict.fromkeys((r["name"], protocol(r)) for r in rows))
    heads = [f"{name}, {kind}" for name, kind in methods]
    lines = [f"| unseen tasks | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for group in dict.fromkeys(tasks(r) for r in rows):
        scores = {
            (r["name"], protocol(r)): show(r["metric"], r["mean"], r["interval"])
            for r in rows
            if tasks(r) == group
        }
        cells = [scores.get(method, "–") for method in methods]
        cells[0] = f"**{cells[0]}**"
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def full(record: Record) -> str:
    """Every result with its protocol, the paper's value beside it, and how to get it again."""
    lines = [
        "| unseen tasks | method | inductive | transductive | published, and its protocol | extra "
        "| episodes, hash |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in record["results"]:
        score = show(r["metric"], r["mean"], r["interval"])
        if r.get("seed_std") is not None:
            score += f"; {len(r['training_seeds'])} seeds ± {show(r['metric'], r['seed_std'])}"
        extra = ", ".join(f"{k} {v:.3f}" for k, v in r["extra"].items()) or "–"
        lines.append(
            f"| {tasks(r)} | {r['name']} | {columns(r, score)} "
            f"| {published(record['name'], r)} | {extra} "
            f"| {r['episodes']}, `{r['episode_hash']}` |"
        )
    first, train = record["results"][0], record["config"]["train"]
    seeds = first.get("training_seeds") or record["config"]["seed"]
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items())
    final = train.get("split", "train") != "train"
    kept = (
        f"meta-trained on {train['split']}, the last weights kept"
        if final
        else f"weights of step {listed(record['meta_steps_kept'])} kept by validation"
    )
    trained = f"{record['meta_steps_run']} meta-steps in {record['training_seconds']} s, {kept}"
    lines += [
        "",
        f"`{first['command']}`: seed {listed(seeds)}, "
        + (trained if record["meta_steps_run"] else "nothing meta-trained")
        + f"; commit `{first['commit']}`; {versions}.",
    ]
    return "\n".join(lines)


def methods(found: dict[str, Record]) -> dict[str, str]:
    """Of each learner: what its docstring says, the recipes, and what they have reached."""
    texts = {}
    for name in learner_names():
        cls = learner_class(name)
        notes = docstring_sections(cls)
        own = [r for r in recipe_names() if read_recipe(r).learner.name == name]
        by = ", ".join(f"`kshot train {recipe}`" for recipe in own) or "no recipe yet"
        texts[f"method {name}"] = "\n\n".join(
            [
                notes["about"],
                f"**Fast:** {cls.fast}. **Family:** {cls.family}. **Recipes:** {by}.",
                f"**Deviations from the paper.** {' '.join(notes['Deviations'].split())}",
                f"```bibtex\n{notes['Reference']}\n```",
            ]
        )
        rows = [
            f"| {tasks(r)} | {r['name']} (`{recipe}`) "
            f"| {columns(r, show(r['metric'], r['mean'], r['interval']))} "
            f"| {published(recipe, r)} |"
            for recipe in own
            for r in (found[recipe]["results"] if recipe in found else ())
            if not is_baseline(r)
        ]
        head = [
            "| unseen tasks | method | inductive | transductive | published, and its protocol |",
            "|---|---|---|---|---|",
        ]
        texts[f"results of {name}"] = "\n".join([*head, *rows]) if rows else "No record yet."
    return texts


def sentences(found: dict[str, Record]) -> dict[str, str]:
    """Differences that the pages state in words."""
    texts = {}
    if "protonet-glyphs" in found:
        on_digits = [
            r
            for r in found["protonet-glyphs"]["results"]
            if r["source"] == "digits/test" and r["task"] == "10-way 5-shot"
        ]
        ours, pixels = (100 * r["mean"] for r in on_digits[:2])
        side = "above" if ours > pixels else "below"
        texts["digits"] = (
            f"On `digits`, 10-way 5-shot, the trained encoder is {abs(ours - pixels):.1f} points "
            f"{side} 1-nearest-neighbour on pixels ({ours:.1f} against {pixels:.1f} %). The aim "
            "was +15, which this target cannot show: its pixels alone leave "
            f"{100 - pixels:.1f} points."
        )
    return texts


DATASETS = ("omniglot", "cifar_fs", "wordnet")
"""Those with a table of all methods."""


def tables() -> dict[str, str]:
    """Everything that a page may include, by name."""
    found = records()
    made = {f"{name} summary": summary(r) for name, r in found.items()}
    made |= {name: full(r) for name, r in found.items()}
    made |= {"overview": overview(found), "regression": regression(found)} | methods(found)
    made["chooser"] = chooser(found)
    made |= {f"methods on {data}": benchmark(found, data) for data in DATASETS}
    made |= sentences(found) | made_of_practice(found) | made_of_transfer()
    return made | speed() | selections() | rivals()


def fill(text: str, made: dict[str, str]) -> str:
    """The text with each marked place filled in."""
    for name, table in made.items():
        start = START.format(name)
        while start in text and not text.split(start, 1)[1].startswith(f"\n{table}\n{END}"):
            before, rest = text.split(start, 1)
            text = f"{before}{start}\n{table}\n{END}{rest.split(END, 1)[1]}"
    return text


def main() -> int:
    """Write or check all pages."""
    made, stale = tables(), []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        filled = fill(text, made)
        if filled != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(filled, encoding="utf-8")
    print("stale:" if "--check" in sys.argv else "written:", ", ".join(stale) or "nothing")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
