"""The report as a page."""

import re
from dataclasses import replace

import kshot
from kshot.evaluation.report import write_report
from kshot.testing import gaussians


def rows_of(path, results):
    write_report(path, "a run", "of a test", results, [], {})
    page = path.read_text(encoding="utf-8")
    return [re.findall(r"<t[hd][^>]*>([^<]*)", row) for row in re.findall("<tr.*?</tr>", page)]


def test_every_column_of_the_table_has_a_head(tmp_path):
    result = kshot.evaluate(kshot.NearestNeighbour(), gaussians()["test"], query=2, episodes=3)
    heads, row = rows_of(tmp_path / "plain.html", [result])
    assert heads == ["task", "method", "Accuracy", "episodes", "protocol"]
    assert row == [result.heading, "NearestNeighbour", str(result), "3", "inductive"]
    covered = replace(result, extra={"coverage_90": 0.875})
    heads, row, other = rows_of(tmp_path / "extra.html", [covered, result])
    assert heads[5:] == ["coverage 90"]
    assert row[5:] == ["0.875"]
    assert other == ["", *row[1:5], ""]


def test_text_is_escaped(tmp_path):
    result = kshot.evaluate(
        kshot.NearestNeighbour(), gaussians()["test"], query=2, episodes=3, name="a <b> & c"
    )
    assert rows_of(tmp_path / "page.html", [result])[1][1] == "a &lt;b&gt; &amp; c"
