"""Everything that decides how a meta-training goes on, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from kshot.errors import CheckpointError
from kshot.files import atomic
from kshot.training.settings import check_same

CHECKPOINT_FORMAT = 2


@dataclass
class Row:
    """One line of the metrics; `validation` and `interval` where one was due."""

    step: int
    loss: float
    lr: float
    seconds: float
    validation: float | None = None
    interval: float | None = None


@dataclass
class History:
    """How a meta-training went.

    Attributes:
        rows: about a hundred, and one for each validation.
        metric: what the validation measures, `accuracy` or `mse`.
        best_step: the step whose weights were kept.
        steps: outer steps run.
        seconds: of wall time, validation included; over all sittings of a resumed run.
        stopped: why it ended early, or None.
    """

    rows: list[Row] = field(default_factory=list)
    metric: str = "accuracy"
    best_step: int = 0
    steps: int = 0
    seconds: float = 0.0
    stopped: str | None = None


class Best:
    """The best weights so far; the first ones until there are any."""

    def __init__(self, learner: nn.Module) -> None:
        self.step, self.score = 0, float("-inf")
        self._keep(learner)

    def _keep(self, learner: nn.Module) -> None:
        self.weights = {k: v.detach().clone() for k, v in learner.state_dict().items()}

    def offer(self, learner: nn.Module, row: Row, metric: str) -> bool:
        """Keep these weights if they validate better, or if there is nothing to judge by."""
        score = float(row.step) if row.validation is None else row.validation
        if row.validation is not None and metric != "accuracy":
            score = -score
        if not score > self.score:  # NaN is never better
            return False
        self.step, self.score = row.step, score
        self._keep(learner)
        return True

    def restore(self, learner: nn.Module) -> None:
        """Give the learner the best weights."""
        learner.load_state_dict(self.weights)


@dataclass
class TrainingState:
    """The moving parts of a meta-training.

    Attributes:
        learner: with the weights of the last step.
        optimizer: with its moments.
        scheduler: of the learning rate.
        best: the weights to end with.
        history: so far.
        smooth: the smoothed loss.
        rate: the learning rate of the last step.
        pool: classes that wait for a meta-batch of hard tasks.
    """

    learner: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    best: Best
    history: History
    smooth: float = 0.0
    rate: float = 0.0
    pool: list[int] = field(default_factory=list)

    def save(self, path: Path, settings: Mapping[str, str]) -> None:
        """Write everything into one safetensors file, atomically.

        Args:
            path: of the file.
            settings: what decided the training (see `kshot.training.settings`), to be compared
                when it is loaded.

        Raises:
            CheckpointError: if the file cannot be written, or the optimizer's state not be kept.
        """
        optimizer = self.optimizer.state_dict()
        moments, numbers = _split_state(optimizer["state"])
        words = {
            "format": CHECKPOINT_FORMAT,
            "settings": dict(settings),
            "groups": optimizer["param_groups"],
            "numbers": numbers,
            "scheduler": self.scheduler.state_dict(),
            "history": asdict(self.history),
            "smooth": self.smooth,
            "rate": self.rate,
            "pool": self.pool,
            "best": [self.best.step, self.best.score],
        }
        tensors = moments | {f"learner/{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.weights.items()}
        save_tensors(path, tensors, words)

    def load(self, path: Path, settings: Mapping[str, str]) -> None:
        """Continue from a file that `save` has written.

        Raises:
            CheckpointError: if it is damaged, does not fit, or belongs to another training.
        """
        words = read_words(path)
        if words.get("format") != CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{path} is no checkpoint of this kshot (format {words.get('format')}, not "
                f"{CHECKPOINT_FORMAT}): start anew with another file."
            )
        check_same(path, words["settings"], settings)
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.learner.load_state_dict(_under("learner/", tensors))
            self.best.weights = _like(self.best.weights, _under("best/", tensors))
            self._load_optimizer(_under("optimizer/", tensors), words)
            self.scheduler.load_state_dict(words["scheduler"])
            rows = [Row(**row) for row in words["history"].pop("rows")]
            self.history = History(rows, **words["history"])
            self.history.stopped = None
            self.smooth, self.rate = words["smooth"], words["rate"]
            self.pool = words.get("pool", [])
            self.best.step, self.best.score = words["best"]
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            what = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} does not fit this learner: {what}.") from error

    def _load_optimizer(self, moments: Mapping[str, Tensor], words: Mapping[str, Any]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {
            int(i): dict(values) for i, values in words["numbers"].items()
        }
        for name, tensor in moments.items():
            number, _, key = name.partition("/")
            parameter = parameters[int(number)]
            # Sums run in the order of the memory: the same layout gives the same bits.
            if tensor.shape == parameter.shape:
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": words["groups"]})


def _split_state(
    state: Mapping[int, Mapping[str, Any]],
) -> tuple[dict[str, Tensor], dict[int, dict[str, Any]]]:
    """An optimizer's state as tensors and plain numbers."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[int, dict[str, Any]] = {}
    for i, values in state.items():
        numbers[i] = {}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{i}/{key}"] = value
            elif value is None or isinstance(value, (bool, int, float, str)):
                numbers[i][key] = value
            else:
                raise CheckpointError(
                    f"the optimizer keeps {key!r} as {type(value).__name__}, which a checkpoint "
                    "cannot hold: use one that keeps tensors and numbers, such as Adam."
                )
    return tensors, numbers


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _like(present: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The loaded tensors in the memory layout and on the device of the present ones."""
    return {name: torch.empty_like(value).copy_(loaded[name]) for name, value in present.items()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> None:
    """One safetensors file with JSON in its header, whole or not at all.

    Raises:
        CheckpointError: if it cannot be written.
    """
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(plain, str(temporary), {"kshot": json.dumps(words)})
        except SafetensorError as error:
            raise CheckpointError(
                f"cannot write {path}: {error}; free some space or choose another folder."
            ) from error


def read_words(path: Path) -> dict[str, Any]:
    """The JSON in the header of a file that `save_tensors` has written.

    Raises:
        CheckpointError: if there is none.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            words: dict[str, Any] = json.loads(file.metadata()["kshot"])
        return words
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or not kshot's ({' '.join(str(error).split())[:120]})."
        ) from error
