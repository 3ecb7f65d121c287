"""The run folder: weights, configuration, metrics, results, and how to load them again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import kshot
from kshot.errors import CheckpointError
from kshot.files import atomic, cannot_write, write_json
from kshot.learners import MetaLearner, TaskShape
from kshot.training.build import make_learner
from kshot.training.config import RunConfig, validate
from kshot.training.train import Row

FORMAT = 1
"""Of the run folder; a greater number means a newer kshot."""


@dataclass(frozen=True)
class Run:
    """A loaded run.

    Attributes:
        folder: where it is.
        config: what it was trained with.
        learner: with its best weights, ready to adapt.
        meta_steps: outer steps behind those weights.
    """

    folder: Path
    config: RunConfig
    learner: MetaLearner
    meta_steps: int


class RunFolder:
    """Writes a run folder, every file whole or not at all.

    Raises:
        CheckpointError: if the folder exists and is not empty, or cannot be written.
    """

    def __init__(self, path: Path, config: RunConfig, shape: TaskShape) -> None:
        self.path = path
        if not path.name:
            raise CheckpointError(f"--out {str(path)!r} names no new folder: give it a name.")
        self.parent_created = not path.parent.exists()
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise CheckpointError(
                    f"{path} already holds something: choose another --out or remove it."
                )
            self.created = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        self.manifest = {
            "format": FORMAT,
            "kshot": kshot.__version__,
            "config": config.model_dump(mode="json"),
            "task_shape": shape._asdict(),
            "meta_steps": 0,
        }

    def save(self, learner: MetaLearner, meta_steps: int) -> None:
        """Write the weights, then the manifest that makes them count."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in learner.state_dict().items()}
        with atomic(self.path / "weights.safetensors") as temporary:
            try:
                save_file(tensors, str(temporary))
            except SafetensorError as error:
                raise CheckpointError(
                    f"cannot write {self.path / 'weights.safetensors'}: {error}; "
                    "free some space or choose another folder."
                ) from error
        self.manifest["meta_steps"] = meta_steps
        write_json(self.path / "run.json", self.manifest)

    def log(self, row: Row) -> None:
        """Append a line to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error

    def discard_if_empty(self) -> None:
        """Leave nothing behind where nothing was achieved."""
        if self.created and self.path.is_dir() and not (self.path / "run.json").exists():
            shutil.rmtree(self.path)
            if self.parent_created and not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()


def load_run(folder: str | Path) -> Run:
    """Load a run folder that `kshot train` has written.

    Raises:
        CheckpointError: if the folder is missing, is no run folder, is damaged, or comes from a
            newer kshot.
    """
    path = Path(folder)
    manifest = _read_manifest(path)
    if manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by kshot {manifest.get('kshot')} in format {manifest['format']}, "
            f"but this is kshot {kshot.__version__}, which reads format {FORMAT}: upgrade kshot."
        )
    try:
        config = validate(manifest["config"])
        fields = manifest["task_shape"]
        shape = TaskShape(
            tuple(fields["x_shape"]), fields["way"], fields["length"], tuple(fields["y_shape"])
        )
        with torch.random.fork_rng():
            learner = make_learner(config, shape)
        learner.load_state_dict(load_file(str(path / "weights.safetensors")))
    except (KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        what = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} is damaged or incomplete ({what}): train it again."
        ) from error
    return Run(path, config, learner.eval(), int(manifest["meta_steps"]))


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
    return manifest
