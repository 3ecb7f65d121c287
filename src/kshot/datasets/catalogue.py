"""The data sets by name: kshot's own and those of any installed package that offers some."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from kshot.datasets.base import Dataset
from kshot.errors import unknown


@dataclass(frozen=True)
class Entry:
    """A data set that can be loaded; what an entry point of the group `kshot.datasets` names.

    Attributes:
        build: makes the data set; its keyword arguments are the data set's options.
        about: one line.
        size: classes and examples, in words.
        splits: names of the splits.
        source: where the data come from.
        licence: under which terms.
        present: whether it is on this machine.
        otherwise: what has to happen where it is not.
    """

    build: Callable[..., Dataset]
    about: str
    size: str
    splits: tuple[str, ...]
    source: str
    licence: str
    present: Callable[[], bool] = lambda: True
    otherwise: str = "made on first use"


def dataset_names() -> list[str]:
    """Names of all data sets that are installed."""
    return sorted({point.name for point in entry_points(group="kshot.datasets")})


def entry(name: str) -> Entry:
    """The catalogue's entry of that name.

    Raises:
        ConfigError: if none has it.
    """
    found = {point.name: point for point in entry_points(group="kshot.datasets")}
    if name not in found:
        raise unknown("data set", name, found)
    loaded: Entry = found[name].load()
    return loaded


def load(name: str, **options: Any) -> Dataset:
    """The data set of that name.

    Args:
        name: as `kshot datasets` lists it.
        options: the data set's own.

    Raises:
        ConfigError: for an unknown name or option.
    """
    build = entry(name).build
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of the data set {name}", option, known)
    return build(**options)
