"""Tables in the terminal."""

from dataclasses import replace

from rich.console import Console

import kshot
from kshot.cli.tables import comparison_table, footer, result_table
from kshot.evaluation import paired_difference
from kshot.testing import gaussians

ONE = kshot.evaluate(
    kshot.NearestNeighbour(),
    gaussians()["test"],
    query=2,
    episodes=3,
    name="ours",
    meta_steps=1000,
    training_seed=0,
)


def printed(*results):
    return shown(result_table(results), footer(results))


def shown(*parts):
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    return capture.get().splitlines()


def test_methods_stand_below_their_task():
    other, harder = replace(ONE, name="other", meta_steps=0), replace(ONE, task="18-way 1-shot")
    lines = printed(ONE, other, harder)
    assert sum("gaussians/test, 5-way 1-shot" in line for line in lines) == 1
    assert sum("gaussians/test, 18-way 1-shot" in line for line in lines) == 1
    rows = [line.split()[0] for line in lines if line.startswith("  ") and line.strip()]
    assert rows == ["ours", "other", "ours"]


def test_the_widest_rows_fit():
    wide = replace(ONE, source="omniglot/test", task="20-way 1-shot", name="untrained encoder")
    seeds = replace(wide, training_seeds=(0, 1, 2), seed_std=0.123, mean=0.5, interval=0.1)
    assert any("50.00 ± 10.00 %, 3 seeds ± 12.30  inductive" in line for line in printed(seeds))


def test_names_are_folded_and_numbers_are_not():
    seeds = replace(ONE, training_seeds=(0, 1), seed_std=0.1, transductive=True, name="x" * 60)
    assert any("2 seeds ± 10.00  transductive" in line for line in printed(seeds))
    lines = shown(comparison_table([ONE, seeds], [paired_difference(seeds, ONE)]))
    assert "".join(lines).count("x") == 60
    row = next(line for line in lines if line.startswith("xx"))
    assert f"± {100 * ONE.interval:.2f} %" in row
    assert row.split()[-5:] == ["0.00", "not", "told", "apart", "transductive"]


def test_evaluations_with_other_queries_stand_apart():
    other = replace(ONE, spec=ONE.spec | {"query": 1}, episode_hash="another")
    headings = [line for line in printed(ONE, other) if line.startswith("gaussians")]
    assert headings == [f"gaussians/test, 5-way 1-shot, {n}" for n in ("2 queries", "1 query")]


def test_the_footer_says_what_is_common():
    lines = printed(ONE, replace(ONE, name="other", seed=1, training_seeds=(0, 1)))
    assert f"3 episodes, 2 queries per class, hash {ONE.episode_hash}" in lines
    assert "ours: inductive, normalisation none, 1,000 meta-steps, training seed 0" in lines
    assert "other: inductive, normalisation none, 1,000 meta-steps, training seeds 0, 1" in lines
    assert lines[-1].startswith(f"kshot {kshot.__version__}")
