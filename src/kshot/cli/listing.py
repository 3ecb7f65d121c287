"""`kshot datasets`, `kshot learners`, `kshot cite`, `kshot recipes`, `kshot env`."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import torch
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

import kshot
from kshot.datasets import dataset_names, entry
from kshot.errors import ConfigError
from kshot.files import cache_folder
from kshot.learners import (
    MetaLearner,
    docstring_sections,
    learner_class,
    learner_names,
    learner_options,
)
from kshot.training.config import recipe_names

PACKAGES = (
    "torch",
    "numpy",
    "scikit-learn",
    "matplotlib",
    "pillow",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
    "tensorboard",
)


def datasets() -> None:
    """A short paragraph for each data set."""
    console = Console(highlight=False)
    for name in dataset_names():
        e = entry(name)
        here = "here" if e.present() else e.otherwise
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row("", f"{e.about}")
        table.add_row("size", f"{e.size}; splits {', '.join(e.splits)}")
        table.add_row("source", e.source)
        table.add_row("licence", e.licence)
        console.print(f"[bold]{name}[/bold]  [dim]({here})[/dim]")
        console.print(Padding(table, (0, 0, 1, 2)))


def recipes() -> None:
    """One line for each recipe: its name and its first comment."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in recipe_names():
        text = (files("kshot") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        comment = [line[2:] for line in text.splitlines() if line.startswith("# ")]
        table.add_row(name, " ".join(comment))
    Console(highlight=False).print(table)


def learners() -> None:
    """Two lines for each learner: where it comes from, and what it is for."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name in learner_names():
        cls = learner_class(name)
        kinds = ", ".join(cls.tasks)
        if "classification" in cls.tasks:
            way = "any way" if cls.any_way else "up to the widest way trained on"
            kinds = kinds.replace("classification", f"classification ({way})")
        table.add_row(f"[bold]{name}[/bold]", f"{cls.family}; {_paper(cls)}; {_answers(cls)}")
        table.add_row("", f"fast: {cls.fast}\n{kinds}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\ntransductive*: batch statistics of the queries together, as published; with "
        "learner.normalization=support (`kshot evaluate --inductive`) it is inductive.",
        style="dim",
    )


def cite(name: str) -> None:
    """The BibTeX entry of a learner's paper."""
    print(_reference(learner_class(name)))  # noqa: T201


def _reference(cls: type[MetaLearner]) -> str:
    reference = docstring_sections(cls).get("Reference")
    if reference is None:
        raise ConfigError(f"{cls.__name__} names no reference: its docstring has none.")
    return reference


def _paper(cls: type[MetaLearner]) -> str:
    """Surnames of the authors, or of the first one, and the year."""
    entry = _reference(cls)
    authors = re.search(r"author=\{(.*?)\}[,}]", entry, re.DOTALL)
    year = re.search(r"year=\{(\d+)\}", entry)
    if authors is None or year is None:
        return "-"
    names = [name.split(",")[0].strip() for name in authors[1].split(" and ")]
    return f"{' and '.join(names) if len(names) < 3 else f'{names[0]} et al.'} {year[1]}"


def _answers(cls: type[MetaLearner]) -> str:
    if cls.family == "transductive":
        return "transductive"
    return "transductive*" if learner_options(cls).get("normalization") == "task" else "inductive"


def env() -> None:
    """Versions, devices, threads, folders."""
    lines = {
        "kshot": kshot.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "not available",
        "mps": "available" if torch.backends.mps.is_available() else "not available",
        "cache": str(cache_folder()),
        "KSHOT_DATA": os.environ.get("KSHOT_DATA", "not set"),
    }
    lines.update({name: _version(name) for name in PACKAGES})
    for name, value in lines.items():
        print(f"{name:<14} {value}")  # noqa: T201


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
