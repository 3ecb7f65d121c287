"""A result is a record: the number, its interval, and everything needed to obtain it again."""

from __future__ import annotations

import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
        options: of the data set, as far as it tells them.
        episode_hash: identifies the very episodes.
        seed: of the episodes.
        transductive: whether queries may influence each other's answers.
        normalization: where batch statistics came from; `none` where there are none.
        meta_steps: outer steps that the learner was trained for; of several runs the most.
        training_seeds: of the runs that were averaged, or of the one run.
        seed_std: standard deviation over the training seeds, where there are several.
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
    options: dict[str, Any] = field(default_factory=dict, kw_only=True)
    episode_hash: str
    seed: int
    transductive: bool
    normalization: str
    meta_steps: int
    training_seeds: tuple[int, ...] = ()
    seed_std: float | None = None
    extra: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    commit: str | None = field(default_factory=lambda: source_commit())
    command: str = field(default_factory=lambda: command())
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    @property
    def where(self) -> str:
        """Data set, split and what its options decide, as people read them."""
        return with_options(self.source, self.options)

    @property
    def tasks(self) -> str:
        """Way, shot and query, as people read them."""
        queries = self.spec["query"]
        return f"{self.task}, {queries} {'query' if queries == 1 else 'queries'}"

    @property
    def heading(self) -> str:
        """What it shares with the other methods on the same tasks."""
        return f"{self.where}, {self.tasks}"

    @property
    def protocol(self) -> str:
        """`transductive` or `inductive`."""
        return "transductive" if self.transductive else "inductive"

    def as_dict(self) -> dict[str, Any]:
        """The record as it is stored."""
        fields = asdict(self)
        del fields["values"]
        return without_nan(fields)

    def __str__(self) -> str:
        text = show(self.metric, self.mean, self.interval)
        if self.seed_std is None:
            return text
        factor, digits, _ = scale(self.metric)
        return f"{text}, {len(self.training_seeds)} seeds ± {factor * self.seed_std:.{digits}f}"


def over_seeds(results: Sequence[Result]) -> Result:
    """Runs that differ in their training seed alone, as one result.

    The mean is that of the runs' means. The interval is over episodes still, each of which counts
    by its average over the runs; `seed_std` is the sample standard deviation of the runs' means.

    Args:
        results: one for each training seed, as `evaluate` gives them, on the same episodes.

    Returns:
        The joined result; the first one where there is nothing to join, as of a baseline that
        knows no training seed.

    Raises:
        EpisodeError: if the episodes differ, or the training seeds do not.
    """
    first = results[0]
    seeds = tuple(seed for r in results for seed in r.training_seeds)
    if len({(r.episode_hash, r.metric, r.transductive) for r in results}) > 1:
        raise EpisodeError(
            "results over training seeds must be of the same episodes and protocol: evaluate "
            "each run with the same arguments."
        )
    same = all(np.array_equal(r.values, first.values) for r in results)
    if len(results) == 1 or (same and not seeds):
        return first
    if len(set(seeds)) != len(results):
        raise EpisodeError(
            f"{len(results)} results of the training seeds {list(seeds)}: give one result for "
            "each of several seeds."
        )
    values = np.mean([r.values for r in results], axis=0)
    mean, interval = mean_interval(values)
    return replace(
        first,
        mean=mean,
        interval=interval,
        std=float(values.std(ddof=1)),
        meta_steps=max(r.meta_steps for r in results),
        training_seeds=seeds,
        seed_std=float(np.std([r.values.mean() for r in results], ddof=1)),
        extra={k: float(np.mean([r.extra[k] for r in results])) for k in first.extra},
        values=values,
    )


ROUTINE = {
    "channels": 3,
    "flat": False,
    "ink": "bright",
    "min_examples": 2,
    "seed": 0,
    "skip_unreadable": False,
}
"""Options that need no word where they have these values."""

SPEAKING = ("protocol", "resize")
"""Options whose values need no key beside them."""


def with_options(source: str, options: Mapping[str, Any]) -> str:
    """Such as `omniglot/test (vinyals, lanczos, size=28)`."""
    told = []
    for key, value in options.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if str(value) != str(ROUTINE.get(key.rpartition(".")[2])):
            told.append(text if key in SPEAKING else f"{key}={text}")
    return f"{source} ({', '.join(told)})" if told else source


def without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with null for numbers that are not finite, which JSON has not."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()
    }


def scale(metric: str) -> tuple[int, int, str]:
    """Factor, digits and unit by which people read a metric: accuracies are in percent."""
    return (100, 2, " %") if metric == "accuracy" else (1, 3, "")


def show(metric: str, value: float | None, interval: float | None = None) -> str:
    """A score as people read it."""
    if value is None or not math.isfinite(value):
        return "not finite"
    factor, digits, unit = scale(metric)
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
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    program = Path(sys.argv[0]).name
    return shlex.join(["kshot" if program == "__main__.py" else program, *arguments])
