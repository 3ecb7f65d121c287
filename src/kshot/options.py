"""The options that a recipe gives to what it names, checked against who takes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kshot.errors import ConfigError, unknown


def keyword_options(build: Callable[..., Any], decided: Collection[str] = ()) -> dict[str, Any]:
    """The keyword-only arguments of a class or function, with their defaults.

    Args:
        build: a class or function.
        decided: arguments that are no options, because something else decides them.
    """
    parameters = inspect.signature(build).parameters.values()
    return {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in decided
    }


def check_options(
    what: str, build: Callable[..., Any], options: Mapping[str, Any], decided: Collection[str] = ()
) -> None:
    """Compare options with the arguments that a class or function takes, and their types.

    Raises:
        ConfigError: for an option that it does not take, or a value of another type.
    """
    known = keyword_options(build, decided)
    hints = get_type_hints(build.__init__ if inspect.isclass(build) else build)
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of the {what}", option, known)
        taken = TypeAdapter(
            hints.get(option, Any), config=ConfigDict(strict=True, arbitrary_types_allowed=True)
        )
        try:
            taken.validate_json(json.dumps(value, default=str))  # where a list may be a tuple
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ConfigError(
                f"{option} of the {what}: {message[:1].lower()}{message[1:]} (got {value!r})."
            ) from error
