"""One published method, one short file; and the table of all that are installed."""

from __future__ import annotations

import inspect
import textwrap
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from kshot.errors import ConfigError, unknown
from kshot.learners.base import Head, MetaLearner, Predictor, TaskShape
from kshot.options import check_options, keyword_options

__all__ = [
    "Head",
    "MetaLearner",
    "Predictor",
    "TaskShape",
    "build_learner",
    "docstring_sections",
    "learner_class",
    "learner_names",
    "learner_options",
]

# What a recipe does not set, because the tasks or the encoder decide it.
_DECIDED_BY_TASKS = {"features", "way", "length", "y_shape", "classes"}


def learner_names() -> list[str]:
    """The learners of kshot and of every installed package that offers some."""
    return sorted({point.name for point in entry_points(group="kshot.learners")})


def learner_class(name: str) -> type[MetaLearner]:
    """The learner of that name.

    Raises:
        ConfigError: if none has it.
    """
    found = {point.name: point for point in entry_points(group="kshot.learners")}
    if name not in found:
        error = unknown("learner", name, found)
        raise ConfigError(f"{error} A learner of another package needs that package installed.")
    loaded: type[MetaLearner] = found[name].load()
    return loaded


def learner_options(cls: type[MetaLearner]) -> dict[str, Any]:
    """The options that a recipe may set, with their defaults."""
    return keyword_options(cls, _DECIDED_BY_TASKS)


def docstring_sections(cls: type[MetaLearner]) -> dict[str, str]:
    """A learner's docstring by parts: `about` (with the equations), `Args`, `Deviations` ..."""
    sections, name = {"about": ""}, "about"
    for line in (inspect.getdoc(cls) or "").splitlines():
        if line.endswith(":") and line[:-1].isalpha():
            name = line[:-1]
            sections[name] = ""
        else:
            sections[name] += line + "\n"
    return {name: textwrap.dedent(text).strip() for name, text in sections.items()}


def build_learner(
    name: str, encoder: nn.Module, shape: TaskShape, options: dict[str, Any]
) -> MetaLearner:
    """The learner of that name for tasks of this shape.

    Raises:
        ConfigError: for an unknown learner or option, or an impossible value.
    """
    cls = learner_class(name)
    check_options(f"learner {name}", cls, options, _DECIDED_BY_TASKS)
    try:
        return cls.for_tasks(encoder, shape, **options)
    except TypeError as error:
        raise ConfigError(f"the learner {name} cannot be built so: {error}.") from error
