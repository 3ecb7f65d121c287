"""What went wrong, what was expected, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KshotError(Exception):
    """A mistake that the message explains: what came, what was expected, what to do."""


class DataError(KshotError):
    """Data that cannot be used as it is."""


class InputError(DataError, ValueError):
    """Examples that an estimator cannot take; scikit-learn knows it as a ValueError."""


class EpisodeError(KshotError):
    """Episodes that cannot be drawn, or that a learner cannot take."""


class ConfigError(KshotError):
    """A setting that does not exist or has an impossible value."""


class MissingExtraError(ConfigError):
    """A package that is optional, and is not there."""


class CheckpointError(KshotError):
    """A run folder or weights file that cannot be read or written."""


class DifferentiationError(KshotError):
    """An inner loop that cannot be differentiated as asked."""


class DivergedError(KshotError):
    """A loss that became NaN or infinite."""


class WorkerError(KshotError):
    """Another process of the job that has ended."""


def unknown(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the known ones, with the nearest of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "choose one of these."
    return ConfigError(f"no {kind} is called {name!r}; known: {', '.join(names) or 'none'}: {hint}")
