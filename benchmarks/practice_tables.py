"""Tables of what people with a few examples of their own get."""

from __future__ import annotations

import json

from kept import RECORDS, Record, is_baseline, read_published


def practice() -> str:
    """What benchmarks/practice.py has measured."""
    s = json.loads((RECORDS / "practice.json").read_text())
    lines = [
        "| what | measured |",
        "|---|---|",
        f"| `import kshot` | {s['import_seconds']:.2f} s |",
        f"| `kshot --help` | {s['help_seconds']:.2f} s |",
        f"| `FewShotClassifier().fit`, 5 classes of 5 images, warm | {s['fit_seconds']:.2f} s |",
        f"| `kshot fit` on them, from start to file | {s['fit_command_seconds']:.1f} s |",
        f"| `kshot predict`, {s['images']:,} images | {s['predict_seconds']:.0f} s, "
        f"{s['images'] / s['predict_seconds']:.0f} images a second |",
        f"| its peak memory | {s['predict_mib']:.0f} MiB; with {s['few_images']:,} images "
        f"{s['few_mib']:.0f} MiB |",
        "",
        f"`python benchmarks/{s['command']}`: medians of {s['repetitions']}, {s['cores']} cores; "
        f"commit `{s['commit']}`; Python {s['python']}.",
    ]
    return "\n".join(lines)


def calibrations(found: list[Record]) -> str:
    """Expected calibration errors and strangers on meta-test, by `kshot calibrate --json`."""
    lines = [
        "| learner | tested on | accuracy | calibration error as it is | calibrated "
        "| strangers found where 5 % of the known are refused |",
        "|---|---|---|---|---|---|",
    ]
    for r in found:
        share = r["strangers_found_at_5_percent_false_rejects"]
        lines.append(
            f"| `{r['run']}` | {r['tested_on']}, {r['way']}-way {r['shot']}-shot, "
            f"{r['episodes']:,} episodes | {r['accuracy']:.2%} | {r['error_before']:.3f} "
            f"| **{r['error_after']:.3f}** | **{share:.1%}** |"
        )
    lines += ["", "; ".join(f"`{r['command']}`, commit `{r['commit']}`" for r in found) + "."]
    return "\n".join(lines)


def ranker() -> str:
    """How the choices of `auto` stand beside one fixed choice."""
    s = json.loads((RECORDS / "ranker.json").read_text())
    lines = [
        "| unseen tasks | chosen | always the same | gain, by descriptors alone | gain, with "
        "left-out examples | best for each task, known afterwards |",
        "|---|---|---|---|---|---|",
    ]

    def gain(r: Record) -> str:
        return f"{100 * r['gain']:+.2f} ± {100 * r['interval']:.2f}"

    for name, refined in s["refined"].items():
        prior = s["prior"][name]
        if name == "all":
            lines.append(
                f"| all {refined['tasks']:,} | – | – | {gain(prior)} | {gain(refined)} | – |"
            )
            continue
        encoder, head = s["always"][name]
        always = f"{head} on {encoder}" if encoder else head
        lines.append(
            f"| {refined['tasks']} of {name} | {refined['chosen']:.2%} | {refined['always']:.2%} "
            f"({always}) | {gain(prior)} | {gain(refined)} | {refined['best_for_each']:.2%} |"
        )
    lines += [
        "",
        f"`python benchmarks/{s['command']}`: fitted on {s['fit']} tasks of each; commit "
        f"`{s['commit']}`.",
    ]
    return "\n".join(lines)


def ranker_in_words() -> str:
    """What to expect of `auto`."""
    refined = json.loads((RECORDS / "ranker.json").read_text())["refined"]
    gains = {k: f"{100 * r['gain']:+z.1f} ± {100 * r['interval']:.1f}" for k, r in refined.items()}
    by_kind = ", ".join(f"{gain} for {kind}" for kind, gain in gains.items() if kind != "all")
    return (
        f"On {refined['all']['tasks']:,} tasks of classes that it was not fitted on, its choice "
        f"recognises {gains['all'].removeprefix('+')} points more than the one encoder and "
        f"method that are best on average: {by_kind}. Where you know which encoder suits, name it."
    )


def tabular() -> str:
    """SetMetric beside scikit-learn's classifiers."""
    s = json.loads((RECORDS / "tabular.json").read_text())
    names = [n for n in s["rows"][0] if n not in ("table", "shot", "episode_hash")]
    lines = [
        f"| table | shots | {' | '.join(names)} | SetMetric minus the best other |",
        f"|---|---|{'---|' * (len(names) + 1)}",
    ]
    for row in s["rows"]:
        cells = [f"{row[n]['mean']:.2%} ± {100 * row[n]['interval']:.2f}" for n in names]
        best = max(names[1:], key=lambda n: row[n]["mean"])
        gain = f"{100 * row[best]['gain']:+.2f} ± {100 * row[best]['gain_interval']:.2f}"
        lines.append(f"| {row['table']} | {row['shot']} | {' | '.join(cells)} | {gain} |")
    lines += [
        "",
        f"`python benchmarks/{s['command']}`: {s['episodes']} episodes of all classes and 15 "
        f"queries each, the same for all methods; commit `{s['commit']}`.",
    ]
    return "\n".join(lines)


def challenge(measured: dict[str, Record]) -> str:
    """Errors within an alphabet, from one drawer to another, beside the published ones."""
    published = read_published()["omniglot challenge"]["errors"]
    rows = [(error, f"{who}, in {paper}") for who, error, paper in published]
    for name, r in measured.items():
        error, interval = 100 * (1 - r["mean"]), 100 * r["interval"]
        rows.append((error, f"**kshot, `{name}`** ({error:.1f} ± {interval:.1f} %)"))
    lines = ["| who | error |", "|---|---|"]
    return "\n".join([*lines, *(f"| {who} | {error:.1f} % |" for error, who in sorted(rows))])


def in_words(found: Record) -> str:
    """How the shipped learner does on handwriting."""
    scores = {
        (r["task"], r["options"]["protocol"]): f"{100 * r['mean']:.1f} %"
        for r in found["results"]
        if r["source"] == "omniglot/test" and not is_baseline(r)
    }
    mixed = "background-evaluation"
    return (
        "Of handwritten characters of 20 alphabets that it has never seen (Omniglot's evaluation "
        f"set, five classes at a time) it recognises {scores['5-way 1-shot', mixed]} from one "
        f"example of each and {scores['5-way 5-shot', mixed]} from five; of 20 characters of one "
        f"alphabet, from one drawer to another, {scores['20-way 1-shot', 'one-shot']}."
    )


def made(records: dict[str, Record]) -> dict[str, str]:
    """Of the records that there are."""
    parts = {"practice": practice, "ranker": ranker, "tabular": tabular}
    texts = {name: part() for name, part in parts.items() if (RECORDS / f"{name}.json").exists()}
    if "ranker" in texts:
        texts["ranker in words"] = ranker_in_words()
    measured = [json.loads(p.read_text()) for p in sorted(RECORDS.glob("calibration-*.json"))]
    within = {
        name: r
        for name in ("characters", "protonet-omniglot-background")
        for r in records.get(name, {"results": []})["results"]
        if r.get("options", {}).get("protocol") == "one-shot" and not is_baseline(r)
    }
    texts["challenge"] = challenge(within)
    if "characters" in records:
        texts["characters in words"] = in_words(records["characters"])
    return texts | ({"calibrations": calibrations(measured)} if measured else {})
