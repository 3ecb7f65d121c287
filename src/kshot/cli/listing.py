"""`kshot datasets`, `kshot recipes`, `kshot env`."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import torch
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

import kshot
from kshot.datasets import dataset_names, entry
from kshot.files import cache_folder
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
