"""A fitted model as ONNX or as a program of torch.export: encoder, head, and nothing of kshot."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import kshot
from kshot.errors import ConfigError, MissingExtraError
from kshot.estimators.base import FewShotEstimator
from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.forms import Form, TextForm, VectorForm
from kshot.estimators.regressor import FewShotRegressor
from kshot.files import atomic
from kshot.types import Gaussian

FACTS = "kshot.json"
"""Beside a program of torch.export, and the key of an ONNX file's metadata."""


class Answering(nn.Module):
    """A fitted model from prepared inputs to probabilities or values.

    Args:
        model: fitted.
    """

    def __init__(self, model: FewShotClassifier | FewShotRegressor) -> None:
        super().__init__()
        self.learner, self.state = model.learner_, model.state_
        form = model.ready_.form
        # As kshot does: what is subtracted may be many times what is left, and 32 bits too few.
        self.scaling: tuple[Tensor, Tensor] | None = None
        if isinstance(form, VectorForm) and form.mean:
            mean, scale = torch.tensor([form.mean, form.scale], dtype=torch.float64)
            self.scaling = mean, scale
        classifies = isinstance(model, FewShotClassifier)
        self.temperature = model.confidence_.temperature if classifies else 1.0
        self.values = (model.mean_, model.scale_) if isinstance(model, FewShotRegressor) else None

    def forward(self, x: Any) -> tuple[Tensor, ...]:
        """Probabilities `(examples, classes)` and the greatest logit of each, or values."""
        if self.scaling is not None:
            mean, scale = self.scaling
            x = (x - mean) / scale
        if isinstance(x, dict):
            rows: Any = {name: v.unsqueeze(0) for name, v in x.items()}
        else:
            rows = x.float().unsqueeze(0)
        output = self.learner.predict(self.state, rows)
        if self.values is not None:
            mean, scale = self.values
            output = output.mean if isinstance(output, Gaussian) else output
            return (output.squeeze(0) * scale + mean,)
        assert isinstance(output, Tensor)
        logits = output.squeeze(0)
        return torch.softmax(logits / self.temperature, -1), logits.max(-1).values


class _Texts(nn.Module):
    """The same for texts, whose tensors are arguments of their own."""

    def __init__(self, answering: Answering) -> None:
        super().__init__()
        self.answering = answering

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        out: tuple[Tensor, ...] = self.answering(
            {"input_ids": input_ids, "attention_mask": attention_mask}
        )
        return out


def facts_of(model: FewShotClassifier | FewShotRegressor) -> dict[str, Any]:
    """What a consumer needs beside the program: classes, what the inputs are, the threshold."""
    form = model.ready_.form
    facts: dict[str, Any] = {
        "kshot": kshot.__version__,
        "inputs": {
            k: v for k, v in asdict(form).items() if k not in ("mean", "scale", "tokenizer")
        },
        "columns": model.columns_,
        "origin": dict(model.ready_.origin),
    }
    if isinstance(model, FewShotClassifier):
        facts["classes"] = model.classes_.tolist()
        facts["threshold"] = model.confidence_.threshold
        facts["unknown"] = model.unknown_label
    return facts


def export_torch(model: FewShotClassifier | FewShotRegressor, path: Path) -> None:
    """Write a program for `torch.export.load`.

    Raises:
        ConfigError: if the model cannot be exported.
        CheckpointError: if the file cannot be written.
    """
    program = _program(model)
    with atomic(path) as temporary, temporary.open("wb") as file, _quiet():
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts_of(model))})


def export_onnx(model: FewShotClassifier | FewShotRegressor, path: Path) -> None:
    """Write an ONNX file, whose metadata have the classes under `kshot.json`.

    Raises:
        MissingExtraError: without onnx and onnxscript.
        ConfigError: if the model cannot be exported.
        CheckpointError: if the file cannot be written.
    """
    for name in ("onnx", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"ONNX needs {name}: install it with pip install 'kshot[export]'."
            ) from error
    names = ["probabilities", "familiarity"] if isinstance(model, FewShotClassifier) else ["values"]
    inputs = list(_example(model.ready_.form))
    with _quiet(), _explained():
        made = torch.onnx.export(
            _program(model), input_names=inputs, output_names=names, dynamo=True, verbose=False
        )
        assert made is not None
        made.model.metadata_props[FACTS] = json.dumps(facts_of(model), ensure_ascii=False)
        with atomic(path) as temporary:
            made.save(temporary, external_data=False)


def _program(model: FewShotEstimator) -> torch.export.ExportedProgram:
    assert isinstance(model, (FewShotClassifier, FewShotRegressor))
    example = _example(model.ready_.form)
    answering = Answering(model).cpu()
    texts = isinstance(model.ready_.form, TextForm)
    program = (_Texts(answering) if texts else answering).eval()
    several = torch.export.Dim("examples", min=1, max=2**20)
    with _quiet(), _explained(), torch.no_grad():
        return torch.export.export(
            program,
            tuple(example.values()),
            dynamic_shapes=tuple({0: several} for _ in example),
            strict=False,
        )


def _example(form: Form) -> Mapping[str, Tensor]:
    """Two examples by the names of the program's inputs."""
    blank = form.blank()
    if isinstance(blank, dict):
        return blank
    return {form.kind: blank.double() if isinstance(form, VectorForm) else blank}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own versions and on what it cannot simplify."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _explained() -> Iterator[None]:
    """An exporter's many kinds of error as one line."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"this model cannot be exported ({first[:160]}).") from error
