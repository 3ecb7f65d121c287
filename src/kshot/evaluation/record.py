"""A result is a record: the number, its interval, and everything needed to obtain it again."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import kshot
from kshot.errors import EpisodeError


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval over episodes, `1.96 s / sqrt(n)`.

    Raises:
        EpisodeError: for fewer than two values, which have no interval.
    """
    if len(values) < 2:
        raise EpisodeError(f"an interval needs at least 2 episodes, not {len(values)}.")
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


@dataclass(frozen=True)
class Result:
    """One learner's score on one frozen set of episodes.

    Attributes:
        name: of what was evaluated.
        metric: `accuracy` (0 to 1) or `mse`.
        mean: over the episodes.
        interval: half-width of the 95 % interval over the episodes.
        std: standard deviation over the episodes.
        episodes: their number.
        task: such as `5-way 1-shot`.
        spec: way, shot and query.
        source: data set and split.
        episode_hash: identifies the very episodes.
        seed: of the episodes.
        transductive: whether queries may influence each other's answers.
        normalization: where batch statistics came from.
        meta_steps: outer steps that the learner was trained for.
        extra: further means over the episodes, such as the coverage of an interval.
        versions: of Python and the packages that matter.
        commit: of kshot's source, where it is a git checkout.
        command: what was run.
        values: one value per episode; not part of the record on disk.
    """

    name: str
    metric: str
    mean: float
    interval: float
    std: float
    episodes: int
    task: str
    spec: dict[str, object]
    source: str
    episode_hash: str
    seed: int
    transductive: bool
    normalization: str
    meta_steps: int
    extra: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: source_commit())
    command: str = field(default_factory=lambda: command())
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The record as it is stored; JSON has no NaN, so what is not finite becomes null."""
        fields = asdict(self)
        del fields["values"]
        for name in ("mean", "interval", "std"):
            if not math.isfinite(fields[name]):
                fields[name] = None
        return fields

    def __str__(self) -> str:
        return show(self.metric, self.mean, self.interval)


def show(metric: str, value: float | None, interval: float | None = None) -> str:
    """A score as people read it: accuracies in percent, the rest as it is."""
    if value is None or not math.isfinite(value):
        return "not finite"
    factor, digits, unit = (100, 2, " %") if metric == "accuracy" else (1, 3, "")
    spread = "" if interval is None else f" ± {factor * interval:.{digits}f}"
    return f"{factor * value:.{digits}f}{spread}{unit}"


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a number."""
    return {
        "kshot": kshot.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def source_commit() -> str | None:
    """The commit of kshot's source, with `+` where files differ from it; None if installed."""
    here = Path(kshot.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command() -> str:
    """The command line; of absolute paths the last part, since the rest is this machine's."""
    arguments = (Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])
    return " ".join([Path(sys.argv[0]).name, *arguments])
