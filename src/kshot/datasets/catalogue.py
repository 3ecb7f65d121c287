"""The data sets by name: kshot's own and those of any installed package that offers some."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kshot.datasets.base import Dataset
from kshot.datasets.sources import Split
from kshot.errors import ConfigError, unknown


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
    if not isinstance(name, str) or name not in found:
        raise unknown("data set", name, found)
    loaded: Entry = found[name].load()
    return loaded


def load(name: str, **options: Any) -> Dataset:
    """The data set of that name; it and its splits remember the options.

    Args:
        name: as `kshot datasets` lists it.
        options: the data set's own.

    Raises:
        ConfigError: for an unknown name or option.
    """
    told = _told(resolved_options(name, options))
    if options.get("path") is not None:
        options["path"] = str(options["path"])
    data = entry(name).build(**options)
    splits = {
        split: replace(source, options={**source.options, **told})
        if isinstance(source, Split)
        else source
        for split, source in data.splits.items()
    }
    return replace(data, splits=splits, options=told)


def resolved_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the data set of that name: these, else its defaults.

    Raises:
        ConfigError: for an unknown name or option.
    """
    known = inspect.signature(entry(name).build).parameters
    for option, value in options.items():
        if not known:
            raise ConfigError(f"the data set {name} has no options: leave {option!r} out.")
        if option not in known:
            raise unknown(f"option of the data set {name}", option, known)
        default = known[option].default
        if isinstance(value, (list, tuple, Mapping)) and isinstance(default, (str, int, float)):
            raise ConfigError(f"{option}={value!r} of the data set {name}: give one value.")
    defaults = {k: p.default for k, p in known.items() if p.default is not p.empty}
    return {**defaults, **options}


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a record: those that decide something, of a path only its last part."""
    told = {k: v for k, v in options.items() if v is not None}
    if "path" in told:
        told["path"] = Path(str(told["path"])).name
    plain: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return plain
