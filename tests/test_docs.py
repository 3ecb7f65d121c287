"""Everything that README and docs show is run."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from kshot.learners import learner_class, learner_names
from kshot.training.config import read_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for kind, code in found if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("docs_page")
    monkeypatch.setitem(sys.modules, "docs_page", module)
    for number, code in enumerate(blocks(page, "python")):
        if not code.startswith("# file:"):
            exec(compile(code, f"{page.name}, block {number}", "exec"), module.__dict__)


def test_recipes_in_the_docs_are_valid(tmp_path):
    count = 0
    for page in PAGES:
        for code in blocks(page, "toml"):
            if code.startswith("# recipe"):
                path = tmp_path / "recipe.toml"
                path.write_text(code)
                read_recipe(str(path))
                count += 1
    assert count


def test_commands_in_the_docs_exist(cli):
    known = set(re.findall(r"│ (\w+) ", cli("--help").stdout))
    for page in PAGES:
        for code in blocks(page, "sh") + blocks(page, "console"):
            for command in re.findall(r"^\$? ?kshot (\w+)", code, re.MULTILINE):
                assert command in known, f"{page.name}: kshot {command}"


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} -> {target}"


@pytest.mark.parametrize("name", learner_names())
def test_a_learners_docstring_is_complete_and_runs(name):
    cls = learner_class(name)
    text = cls.__doc__ or ""
    parts = ["Args:", "Shapes:", "Deviations:", "Example:", "Reference:"]
    places = [text.find(part) for part in parts]
    assert -1 not in places, dict(zip(parts, places, strict=True))
    assert places == sorted(places)
    module = importlib.import_module(cls.__module__)
    tests = doctest.DocTestFinder().find(cls, cls.__name__, module)
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(r.attempted for r in results) > 0
    assert sum(r.failed for r in results) == 0


def test_tables_say_what_the_records_say():
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr


def test_the_outside_package_works(tmp_path):
    """docs/write-your-own-learner.md: install its package, run its tests, train it by name."""
    page = ROOT / "docs" / "write-your-own-learner.md"
    for language in ("toml", "python"):
        for code in blocks(page, language):
            if match := re.match(r"# file: (\S+)\n", code):
                path = tmp_path / "package" / match[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(code)
    site = tmp_path / "site"
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", site]
    run = [sys.executable, "-m", "pip", *install, tmp_path / "package"]
    subprocess.run(list(map(str, run)), check=True)
    env = {**os.environ, "PYTHONPATH": str(site)}
    pytest_run = [sys.executable, "-m", "pytest", "-q", "tests"]
    subprocess.run(pytest_run, cwd=tmp_path / "package", env=env, check=True)
    name = re.search(r'entry-points."kshot.learners"\]\n(\w+) =', page.read_text())[1]
    train = [
        sys.executable,
        "-m",
        "kshot",
        "train",
        f"--set=learner.name={name}",
        "--set=train.steps=2",
        "--set=train.way=5",
        "--set=evaluation=[]",
        "--quiet",
    ]
    subprocess.run(train, cwd=tmp_path, env=env, check=True)


def test_every_method_has_a_page_with_a_picture():
    for name in set(learner_names()) - {"nearest_neighbour"}:
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
        picture = re.search(r"!\[.+\]\((.+\.png)\)", page)
        assert picture, name
        assert (ROOT / "docs" / "methods" / picture[1]).exists(), name
