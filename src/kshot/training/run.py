"""The run folder: weights, configuration, metrics, results, and how to load them again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

import kshot
from kshot.errors import CheckpointError
from kshot.evaluation import Result
from kshot.evaluation.record import command
from kshot.files import cannot_write, remove_temporary, write_json, write_text
from kshot.learners import MetaLearner, TaskShape
from kshot.training.build import make_learner
from kshot.training.config import RunConfig, validate
from kshot.training.state import Row, read_words, save_tensors
from kshot.types import is_whole

FORMAT = 2
"""Of the run folder; a greater number means a newer kshot."""

WEIGHTS, CHECKPOINT, METRICS = "weights.safetensors", "checkpoint.safetensors", "metrics.jsonl"
SCORES, RESULTS = "scores.safetensors", "results.json"

NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP)
"""What a file system without locks answers, such as some network drives."""


@dataclass(frozen=True)
class Run:
    """A loaded run.

    Attributes:
        folder: where it is.
        config: what it was trained with.
        learner: with its best weights, ready to adapt.
        meta_steps: outer steps behind those weights.
        shape: of the tasks that it was built for.
    """

    folder: Path
    config: RunConfig
    learner: MetaLearner
    meta_steps: int
    shape: TaskShape


class RunFolder:
    """A run folder being written, every file whole or not at all, by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT
        self.made: list[Path] = []

    @classmethod
    @contextmanager
    def create(cls, path: Path, config: RunConfig, shape: TaskShape) -> Iterator[RunFolder]:
        """A new folder, with the configuration in it; it goes if nothing is achieved.

        Raises:
            CheckpointError: if the folder exists and is not empty, or cannot be written.
        """
        if not path.name:
            raise CheckpointError(f"--out {str(path)!r} names no new folder: give it a name.")
        folder = cls(path)
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise CheckpointError(
                    f"{path} already holds something: choose another --out, remove it, or go on "
                    f"with the run in it by --resume {path}."
                )
            folder.made = [p for p in (path, *path.parents) if not p.exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        manifest = {
            "format": FORMAT,
            "kshot": kshot.__version__,
            "config": config.model_dump(mode="json"),
            "task_shape": shape._asdict(),
            "command": command(),
        }
        with _locked(path):
            try:
                write_json(path / "run.json", manifest)
                yield folder
            finally:
                folder._discard_if_empty()

    @classmethod
    @contextmanager
    def reopen(cls, path: Path) -> Iterator[RunFolder]:
        """The folder of a run that was stopped, its metrics cut back to its checkpoint.

        Raises:
            CheckpointError: if the run has finished, if another process is at it, or if its
                checkpoint is damaged.
        """
        folder = cls(path)
        with _locked(path):
            if (path / RESULTS).exists():
                raise CheckpointError(
                    f"{path} has finished: see {path / 'report.html'}, or `kshot evaluate {path}`."
                )
            remove_temporary(path)
            rows = folder._history["rows"] if folder.started else []
            write_text(path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
            yield folder

    @property
    def command(self) -> str:
        """What began the run, however often it was resumed."""
        return str(_read_manifest(self.path)["command"])

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.checkpoint.exists()

    @property
    def steps(self) -> int:
        """Outer steps behind the checkpoint."""
        return int(self._history["steps"])

    @property
    def _history(self) -> dict[str, Any]:
        words = read_words(self.checkpoint)
        if "history" not in words:
            raise CheckpointError(
                f"{self.checkpoint} is no checkpoint of a training: put the right file back, or "
                "start anew."
            )
        history: dict[str, Any] = words["history"]
        return history

    def save(self, learner: MetaLearner, meta_steps: int) -> None:
        """Write the weights and the number of outer steps behind them."""
        save_tensors(self.path / WEIGHTS, learner.state_dict(), {"meta_steps": meta_steps})

    def log(self, row: Row) -> None:
        """Append a line to metrics.jsonl."""
        path = self.path / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    def finish(self, results: Sequence[Result]) -> None:
        """Write each episode's score and then the records, which tell that the run is complete."""
        scores = {str(i): torch.from_numpy(r.values) for i, r in enumerate(results)}
        save_tensors(self.path / SCORES, scores, {})
        write_json(self.path / RESULTS, [r.as_dict() for r in results])
        self.checkpoint.unlink(missing_ok=True)

    def _discard_if_empty(self) -> None:
        """Leave nothing behind where nothing was achieved."""
        if not (self.started or (self.path / WEIGHTS).exists()):
            shutil.rmtree(self.path)
            remove_empty(self.made[1:])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Refuse a folder that another process writes; the system lets go of it at a death."""
    if sys.platform == "win32":
        yield  # it has no such locks
        return
    import fcntl

    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another process is at the run in {folder}: wait until it has ended, or stop it "
                "first."
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise cannot_write(folder, error) from error
        yield
    finally:
        os.close(lock)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, as far as they are there and empty."""
    for folder in filter(Path.exists, folders):
        if any(folder.iterdir()):
            return
        folder.rmdir()


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        CheckpointError: if it is none, or of another format.
    """
    return validate(_read_manifest(folder)["config"])


def has_adapters(folder: Path) -> bool:
    """Whether the weights of a run folder are some that adapters change.

    Raises:
        CheckpointError: if they are damaged.
    """
    try:
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            return any(".parametrizations." in name for name in list(file.keys()))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} has no weights to start from ({error}): train it to its end."
        ) from error


def read_results(folder: Path) -> list[Result] | None:
    """The results of a finished run, each with its episodes' scores; None if it has not finished.

    Raises:
        CheckpointError: if they are damaged.
    """
    if not (folder / RESULTS).exists():
        return None
    try:
        records = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        scores = load_file(str(folder / SCORES))
        return [Result(**r, values=scores[str(i)].numpy()) for i, r in enumerate(records)]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"the results of {folder} are damaged ({' '.join(str(error).split())[:120]}), but not "
            f"its weights: `kshot evaluate {folder}` scores them again."
        ) from error


def load_run(folder: str | Path) -> Run:
    """Load a run folder that `kshot train` has written.

    Raises:
        CheckpointError: if the folder is missing, is no run folder, is damaged, or comes from a
            newer kshot.
    """
    path = Path(folder)
    manifest = _read_manifest(path)
    if not (path / WEIGHTS).exists():
        raise CheckpointError(
            f"{path} has no weights yet: go on with it by `kshot train --resume {path}`."
        )
    try:
        config = validate(manifest["config"])
        shape = shape_of(manifest["task_shape"])
        with torch.random.fork_rng():
            learner = make_learner(config, shape, restored=True)
        weights = load_file(str(path / WEIGHTS))
        check_fit(path / WEIGHTS, weights, learner.state_dict())
        learner.load_state_dict(weights)
        meta_steps = int(read_words(path / WEIGHTS)["meta_steps"])
    except (KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} is damaged or incomplete ({what}): train it again."
        ) from error
    return Run(path, config, learner.eval(), meta_steps, shape)


def shape_of(fields: Mapping[str, Any]) -> TaskShape:
    """The shape of tasks as a file has it.

    Raises:
        ValueError: if its numbers are none.
    """
    shape = TaskShape(
        tuple(fields["x_shape"]),
        fields["way"],
        fields["length"],
        tuple(fields["y_shape"]),
        fields.get("classes", 0),
    )
    numbers = (*shape.x_shape, shape.way, shape.length, *shape.y_shape, shape.classes)
    if not all(is_whole(number, 0) for number in numbers):
        raise ValueError(f"tasks of {shape!r:.100}")
    return shape


def check_fit(path: Path, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if the weights of a file are not those of a learner, by shape."""
    shapes = [{name: tuple(w.shape) for name, w in part.items()} for part in (weights, own)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        found, expected = (part.get(name, "absent") for part in shapes)
        if found != expected:
            raise CheckpointError(
                f"{path} does not fit its own recipe: {name} is {found} and not {expected}; put "
                "the original file back, or make it again."
            )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"there is no run folder {path}: give the folder of a `kshot train`.")
    try:
        manifest: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if not isinstance(manifest["format"], int):
            raise TypeError("format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a kshot run: it has no readable run.json; "
            "give the folder of a `kshot train`."
        ) from error
    if manifest["format"] != FORMAT:
        newer = manifest["format"] > FORMAT
        raise CheckpointError(
            f"{path} was written by kshot {manifest.get('kshot')} in format {manifest['format']}, "
            f"but this is kshot {kshot.__version__}, which reads format {FORMAT}: "
            f"{'upgrade kshot' if newer else 'train it again'}."
        )
    return manifest
