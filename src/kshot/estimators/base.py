"""What the classifier and the regressor share: inputs, features, the fitted state."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from kshot.errors import ConfigError, InputError
from kshot.estimators.forms import VectorForm, check_kind, load
from kshot.estimators.inputs import Inputs, read_inputs
from kshot.estimators.model_file import (
    CHARACTERS,
    ENDING,
    read_model,
    shipped_learner,
    write_model,
)
from kshot.estimators.ready import Chosen, Ready, of_module, of_names, of_run
from kshot.estimators.support import Support, names_of, parts_of, thumbnails
from kshot.evaluation import as_protocol
from kshot.evaluation.embedding import device_of, evaluating, on_features
from kshot.learners import MetaLearner, TaskShape
from kshot.training.build import pick_device
from kshot.training.run import load_run
from kshot.types import Examples, Features, Gaussian, Output, concatenate, map_features, unlabelled

ROWS = {"vectors": 4096, "images": 64, "texts": 64}
"""Examples that are loaded and embedded at once."""

AUTO = "auto"
"""The name under which a classifier chooses its head."""

Learner = Chosen | MetaLearner | Path


class FewShotEstimator(BaseEstimator):  # type: ignore[misc]
    """A learner behind scikit-learn's contract: `fit` adapts it, `predict` asks it."""

    def __init__(
        self,
        learner: Learner | None = None,
        encoder: Chosen | nn.Module | None = None,
        *,
        standardize: bool = False,
        device: str = "auto",
    ) -> None:
        self.learner = learner
        self.encoder = encoder
        self.standardize = standardize
        self.device = device

    def _inputs(self, x: Any, *, fitting: bool) -> Inputs:
        """The examples; vectors by scikit-learn's rules."""
        inputs = read_inputs(x)
        if inputs.kind == "vectors":
            return Inputs("vectors", validate_data(self, x, reset=fitting, dtype=np.float64))
        if inputs.size == 0:
            raise InputError("there are no examples: give at least one.")
        return inputs

    def _get_ready(self, inputs: Inputs, shape: TaskShape) -> Ready:
        """The learner that was chosen."""
        learner, encoder = self.learner, self.encoder
        if learner == AUTO:
            learner = None
        if learner is None and encoder is None:
            learner = self._default(inputs)
        if learner == CHARACTERS:
            learner = shipped_learner(CHARACTERS)
        if isinstance(learner, MetaLearner):
            ready = of_module(learner, inputs, shape)
        elif isinstance(learner, (str, Path)) and Path(learner).suffix == ENDING:
            ready = read_model(Path(learner))[0]
        elif isinstance(learner, Path) or (isinstance(learner, str) and Path(learner).is_dir()):
            ready = of_run(load_run(learner))
        elif isinstance(learner, str) and (os.sep in learner or "/" in learner):
            raise ConfigError(
                f"there is no run folder or model file {learner}: check the path, or name a method "
                "(kshot learners)."
            )
        else:
            return of_names(learner or self._default_head(inputs), encoder, inputs, shape)
        if encoder is not None:
            raise ConfigError(
                f"the learner {learner} brings its encoder: leave encoder={encoder!r} out."
            )
        return ready

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """What fails within leaves the model as it was before."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one file, which `kshot.load_model` reads on any machine.

        Raises:
            ConfigError: for a learner that was not chosen by name or as a run folder.
            CheckpointError: if the file cannot be written.
        """
        check_is_fitted(self)
        facts = {
            "estimator": type(self).__name__,
            "columns": self.columns_,
            "standardize": self.standardize,
            "examples": list(self.support_.names),
            **self._facts(),
        }
        tensors = {**self.support_.tensors(), "labels": self.labels_}
        write_model(Path(path), self.ready_, facts, tensors)

    def restore(
        self, ready: Ready, manifest: Mapping[str, Any], support: Mapping[str, Tensor]
    ) -> None:
        """Take the fitted state of a file (see `kshot.load_model`)."""
        self._take(ready)
        self.standardize = bool(manifest.get("standardize", False))
        if isinstance(ready.form, VectorForm):
            self.n_features_in_ = ready.form.width
        self.name_columns([str(name) for name in manifest.get("columns", [])])
        self.support_ = Support.of_file(support, manifest.get("examples", []))
        self._check_features()
        self._restore_facts(manifest)
        self._learn(support["labels"], self._way)

    def _check_features(self) -> None:
        """Raise ValueError where the encoder makes others than were kept."""
        blank = self.ready_.form.blank()
        made, kept, small = self._features(blank), self.support_.features, self.support_.thumbnails
        if small is not None and (
            not isinstance(blank, Tensor) or thumbnails(blank).shape[1:] != small.shape[1:]
        ):
            raise ValueError(f"thumbnails {tuple(small.shape)} for inputs of another size")
        kinds = [
            {k: (tuple(v.shape[1:]), v.dtype) for k, v in parts_of(x).items()} for x in (made, kept)
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(f"features {kinds[1]} of an encoder that makes {kinds[0]}")

    def name_columns(self, names: Sequence[str]) -> None:
        """Say which columns of a table the examples are; scikit-learn then compares those of X."""
        if (
            names
            and isinstance(self.ready_.form, VectorForm)
            and len(names) != self.ready_.form.width
        ):
            raise ValueError(
                f"{len(names)} columns for vectors of {self.ready_.form.width} numbers"
            )
        self.columns_ = list(names)
        if names and isinstance(self.ready_.form, VectorForm):
            self.feature_names_in_ = np.array(names, dtype=object)

    def _facts(self) -> dict[str, Any]:
        raise NotImplementedError

    def _restore_facts(self, manifest: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @property
    def _way(self) -> int:
        raise NotImplementedError

    def _default(self, inputs: Inputs) -> str | None:
        """The learner without an encoder, where none is named."""
        return None if inputs.kind == "texts" else self._default_head(inputs)

    def _default_head(self, inputs: Inputs) -> str:
        """The method by itself or on an encoder, where none is named."""
        raise NotImplementedError

    def _take(self, ready: Ready) -> None:
        """Keep the learner, which is to answer one query by itself."""
        learner = ready.learner.to(pick_device(self.device))
        if learner.head.transductive:
            raise ConfigError(
                f"{type(learner).__name__} learns from the queries too, so that the answer to one "
                "would depend on the others: choose an inductive learner (kshot learners)."
            )
        self.ready_ = ready
        self.learner_ = as_protocol(learner, False)

    def _adapt(
        self, ready: Ready, inputs: Inputs, y: Tensor, embedded: Support | None = None
    ) -> None:
        """Embed the support, unless it was by this very encoder, and learn from it."""
        self._take(self._standardized(_fitting(ready, inputs), inputs))
        named = getattr(self, "feature_names_in_", ()) if inputs.kind == "vectors" else ()
        self.name_columns([str(name) for name in named])
        if embedded is None or not self.learner_.pointwise:
            embedded = self._supported(inputs)
        self.support_ = embedded
        if isinstance(self.ready_.form, VectorForm) and not self.ready_.form.mean:
            _warn_of_offsets(np.asarray(inputs.items, dtype=np.float64))
        self._learn(y, self._way)

    def _standardized(self, ready: Ready, inputs: Inputs) -> Ready:
        """With the columns' means and deviations, where these are asked for."""
        if self.standardize and isinstance(ready.form, VectorForm):
            return replace(ready, form=ready.form.standardized(inputs.items))
        return ready

    def _learn(self, y: Tensor, way: int) -> None:
        """Fit the head to the features."""
        x = map_features(lambda v: v.unsqueeze(0), self.support_.features)
        support = Examples(x, y[None], way=way)
        behind = self.behind
        with evaluating(behind):
            self.state_ = behind.adapt(support.to(device_of(self.learner_))).state
        self.labels_ = y

    @property
    def behind(self) -> MetaLearner:
        """What takes features: the learner without its encoder, where it embeds one by one."""
        return on_features(self.learner_) if self.learner_.pointwise else self.learner_

    def _supported(self, inputs: Inputs, first: int = 0) -> Support:
        """The examples as the head gets them, on the CPU, with what they are recognised by."""
        features, small = [], []
        for x in self._loaded(inputs):
            features.append(self._features(x))
            if inputs.kind == "images":
                small.append(thumbnails(x))
        names = names_of(inputs, first)
        return Support(concatenate(features), names, torch.cat(small) if small else None)

    def _loaded(self, inputs: Inputs) -> Iterator[Features]:
        """Some examples at a time: memory does not grow with the inputs."""
        count = ROWS[inputs.kind]
        for start in range(0, inputs.size, count):
            yield load(self.ready_.form, inputs.part(slice(start, start + count)))

    def _features(self, x: Features) -> Features:
        """Examples as the head gets them, on the CPU."""
        learner = self.learner_
        if not learner.pointwise:
            return x
        with evaluating(learner):
            rows = map_features(lambda v: v.unsqueeze(0).to(device_of(learner)), x)
            return learner.embed(unlabelled(rows))[0][0].cpu()

    def _answers(self, x: Any) -> Iterator[Output]:
        """What the fitted learner says, some rows at a time."""
        check_is_fitted(self)
        behind = self.behind
        for part in self._loaded(self._inputs(x, fitting=False)):
            rows = map_features(
                lambda v: v.unsqueeze(0).to(device_of(self.learner_)), self._features(part)
            )
            with evaluating(behind):
                output = behind.predict(self.state_, rows)
            means = output.mean if isinstance(output, Gaussian) else output
            if not means.isfinite().all():
                raise InputError(
                    "the answer to some of these examples is no number: they are too far from "
                    "what the model was fitted on."
                )
            yield output


FAR = 1000
"""Times the spread of vectors: their distance from 0 from which 32 bits blur their differences."""


def _warn_of_offsets(x: NDArray[np.float64]) -> None:
    middle = x.mean(0)
    spread = np.sqrt(((x - middle) ** 2).sum(1).mean())
    if np.linalg.norm(middle) > FAR * spread > 0:
        warnings.warn(
            "the numbers are far from 0 beside their differences, which 32 bits may blur: give "
            "standardize=True, or take their mean off.",
            stacklevel=4,
        )


def _fitting(ready: Ready, inputs: Inputs) -> Ready:
    """The learner for vectors of that width.

    Raises:
        InputError: if it was trained on others, or takes no vectors.
    """
    form = ready.form
    check_kind(form, inputs)
    if inputs.kind != "vectors" or not isinstance(form, VectorForm):
        return ready
    width = inputs.items.shape[1]
    if width != form.width and not ready.learner.any_width:
        raise InputError(
            f"{type(ready.learner).__name__} was trained on vectors of {form.width} numbers, but "
            f"these have {width}."
        )
    return replace(ready, form=VectorForm(width))
