"""A few-shot classifier with scikit-learn's contract."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import nn

from kshot.datasets.texts import MINILM
from kshot.errors import InputError
from kshot.estimators.base import AUTO, FewShotEstimator, Learner
from kshot.estimators.choice import Choice, choose
from kshot.estimators.confidence import Confidence, estimated, measured
from kshot.estimators.inputs import Inputs, read_inputs
from kshot.estimators.labels import check_alike, labels_as_facts, labels_of, plain_label
from kshot.estimators.model_file import CHARACTERS
from kshot.estimators.ready import Chosen, Ready, has_lite0, of_names, with_head
from kshot.estimators.support import Support
from kshot.evaluation.confidence import familiarity
from kshot.learners import TaskShape
from kshot.learners.rfs import few_examples
from kshot.nn.pretrained import LITE0


def _name_of(encoder: Chosen | nn.Module) -> str:
    """As people call it."""
    if isinstance(encoder, nn.Module):
        return type(encoder).__name__
    return encoder if isinstance(encoder, str) else str(encoder["name"])


class Judgement(NamedTuple):
    """What a classifier says of some examples.

    Attributes:
        labels: `(examples,)`, the most probable class or the label of strangers.
        probabilities: `(examples, classes)`.
        known: `(examples,)`, whether an example is familiar enough to be of a known class.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float64]
    known: NDArray[np.bool_]


class FewShotClassifier(ClassifierMixin, FewShotEstimator):  # type: ignore[misc]
    """Learns classes from a few examples of each: photos, texts or rows of numbers.

    `fit` adapts a meta-trained or pretrained learner to the examples; nothing is trained for long,
    and classes can be added or removed afterwards. Examples are arrays of vectors; arrays, PIL
    images, `Path`s or names of files that exist, for images; other strings, for texts.

    Args:
        learner: a run folder of `kshot train`, a model file, a `MetaLearner`, a method by name
            (`kshot learners`) with options as a table such as `{"name": "rfs", "penalty": 0.1}`, or
            `auto`: method and, unless it is named, encoder are chosen for these examples (see
            `choice_`). By default `protonet` for vectors, the shipped learner `characters` for
            images without an encoder, and `simpleshot` on an encoder.
        encoder: for a method by name: a pretrained network by name, such as
            `efficientnet_lite0` or `minilm`, or a module. Vectors need none.
        calibrate: fit the temperature of the probabilities to answers with each example left out,
            where the learner brings no calibration of its own (`kshot calibrate`).
        false_accepts: the share of strangers, examples of no known class, that may be taken for
            known ones; all others are answered `unknown_label`. None knows no strangers.
        unknown_label: what strangers are called.
        standardize: give each column of vectors mean 0 and deviation 1, by those that are fitted.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Attributes:
        classes_: the labels, in the order of the columns of `predict_proba`.
        choice_: what `auto` has chosen, and why; None for other learners.
        confidence_: temperature and threshold, and what they rest on.
        n_features_in_: the length of vectors.
        columns_: names of these numbers, where they come from a table (`kshot fit`).

    Example:
        >>> import kshot
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> model = kshot.FewShotClassifier().fit(x[::10], y[::10])
        >>> round(model.score(x, y), 2)
        0.9
    """

    def __init__(
        self,
        learner: Learner | None = None,
        encoder: Chosen | nn.Module | None = None,
        *,
        standardize: bool = False,
        calibrate: bool = False,
        false_accepts: float | None = None,
        unknown_label: Hashable = "unknown",
        device: str = "auto",
    ) -> None:
        super().__init__(learner, encoder, standardize=standardize, device=device)
        self.calibrate = calibrate
        self.false_accepts = false_accepts
        self.unknown_label = unknown_label

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the classes of `y` from their examples.

        Args:
            X: the examples: vectors `(examples, features)`, images, or texts.
            y: one label per example.

        Raises:
            InputError: (a ValueError) for examples or labels that cannot be used.
            ConfigError: for a learner or encoder that cannot be had.
        """
        with self.as_it_was():
            inputs = self._inputs(X, fitting=True)
            self.classes_, codes = np.unique(self._labels(y, inputs), return_inverse=True)
            if len(self.classes_) < 2:
                only = str(self.classes_[0])
                raise InputError(f"y has 1 class, {only!r}: give examples of at least 2 classes.")
            shape = TaskShape((), len(self.classes_), inputs.size)
            self.choice_: Choice | None = None
            if self.learner == AUTO:
                self._fit_best(inputs, torch.from_numpy(codes), shape)
            else:
                self._adapt(self._get_ready(inputs, shape), inputs, torch.from_numpy(codes))
        return self

    def _fit_best(self, inputs: Inputs, y: torch.Tensor, shape: TaskShape) -> None:
        """Fit what the ranker expects most of, on features that are computed once."""
        views = self._views(inputs, shape)
        supports = {}
        for encoder, ready in views.items():
            self._take(self._standardized(ready, inputs))
            with warnings.catch_warnings():
                if len(views) > 1:  # what one encoder is not for, another may be
                    warnings.simplefilter("ignore", UserWarning)
                supports[encoder] = self._supported(inputs)
        features = {encoder: seen.features.flatten(1) for encoder, seen in supports.items()}
        self.choice_ = choose(features, y, shape.way)
        encoder = self.choice_.encoder
        ready = with_head(views[encoder], self.choice_.learner, shape)
        self._adapt(ready, inputs, y, supports[encoder])

    def _views(self, inputs: Inputs, shape: TaskShape) -> dict[str, Ready]:
        """What `auto` chooses from: the encoder that was named, or those that are installed."""
        named = "" if self.encoder is None else _name_of(self.encoder)
        if inputs.kind == "vectors" or self.encoder is not None:
            return {named: self._get_ready(inputs, shape)}
        if inputs.kind == "texts":
            return {MINILM: of_names("simpleshot", MINILM, inputs, shape)}
        views = {CHARACTERS: self._get_ready(inputs, shape)}
        if has_lite0():
            views[LITE0] = of_names("simpleshot", LITE0, inputs, shape)
        return views

    def _labels(self, y: Any, inputs: Inputs) -> NDArray[Any]:
        if y is None:
            raise InputError("requires y to be passed, but the target y is None: give the labels.")
        if isinstance(y, (list, tuple)):
            check_alike(y)  # NumPy would make texts of numbers that stand among texts
        labels = column_or_1d(y, warn=True)
        if len(labels) != inputs.size:
            raise InputError(
                f"there are {inputs.size} examples but {len(labels)} labels: give one each."
            )
        check_alike(labels.tolist())
        with few_examples():
            check_classification_targets(labels)
        return np.asarray(labels)

    def judge(self, X: Any) -> Judgement:
        """Labels, probabilities and whether each example is of a known class, in one pass."""
        logits = self._logits(X)
        threshold = self.confidence_.threshold
        known = familiarity(logits) >= (-np.inf if threshold is None else threshold)
        found = self.classes_[logits.argmax(-1).numpy()]
        if not known.all():
            labels = [o if k else self.unknown_label for o, k in zip(found, known, strict=True)]
            # A label of the classes' kind keeps their type: numbers stay numbers.
            alike = np.array([self.unknown_label]).dtype.kind == self.classes_.dtype.kind
            found = np.array(labels, dtype=None if alike else object)
        probabilities = torch.softmax(logits / self.confidence_.temperature, -1)
        return Judgement(found, np.asarray(probabilities), known.numpy())

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities `(examples, classes)`, in the order of `classes_`."""
        return self.judge(X).probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of each example, or `unknown_label`."""
        return self.judge(X).labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the answers that are right; `unknown_label` is right where y says so.

        Raises:
            InputError: for labels of another type, or not as many as examples.
        """
        found = self.predict(X)
        if y is None:
            raise InputError("requires y to be passed, but the target y is None: give the labels.")
        labels = column_or_1d(np.array(y, dtype=object), warn=True).tolist()
        if len(labels) != len(found):
            raise InputError(
                f"there are {len(found)} examples but {len(labels)} labels: give one each."
            )
        check_alike([*self.classes_.tolist(), *(v for v in labels if v != self.unknown_label)])
        right = [a == b for a, b in zip(found.tolist(), labels, strict=True)]
        return float(np.average(right, weights=sample_weight))

    def _logits(self, x: Any) -> torch.Tensor:
        """Of each example, `(examples, classes)`."""
        check_is_fitted(self)
        parts = [output for output in self._answers(x) if isinstance(output, torch.Tensor)]
        return torch.cat(parts, 1).squeeze(0).double().cpu()

    def _learn(self, y: torch.Tensor, way: int) -> None:
        super()._learn(y, way)
        share, calibration = self.false_accepts, self.ready_.calibration
        if share is not None:
            self._check_strangers(share)
        if calibration is not None:
            self.confidence_ = measured(calibration, y, way, share)
        elif self.calibrate or share is not None:
            self.confidence_ = estimated(self.behind, self.support_.features, y, way, share)
        else:
            self.confidence_ = Confidence(1.0, None, "nothing: the learner's own probabilities")

    def _check_strangers(self, share: float) -> None:
        if not (isinstance(share, (int, float, np.floating)) and 0 < share < 1):
            raise InputError(f"false_accepts={share}: give a share between 0 and 1, such as 0.05.")
        if not isinstance(plain_label(self.unknown_label), (str, int, float)):
            raise InputError(
                f"unknown_label={self.unknown_label!r} is neither a text nor a number."
            )
        if self.unknown_label in self.classes_.tolist():
            raise InputError(
                f"{self.unknown_label!r} is a class and what strangers are called: call one of "
                "both otherwise (unknown_label)."
            )

    @property
    def _way(self) -> int:
        return len(self.classes_)

    def _facts(self) -> dict[str, Any]:
        calibration = self.ready_.calibration
        return {
            **labels_as_facts(self.classes_),
            "calibrate": self.calibrate,
            "confidence": self.confidence_._asdict(),
            "calibration": None if calibration is None else calibration.as_dict(),
            "unknown": {
                "false_accepts": None if self.false_accepts is None else float(self.false_accepts),
                "label": plain_label(self.unknown_label),
            },
        }

    def _restore_facts(self, manifest: Mapping[str, Any]) -> None:
        self.classes_ = labels_of(manifest)

    def restore(
        self, ready: Ready, manifest: Mapping[str, Any], support: Mapping[str, torch.Tensor]
    ) -> None:
        """Take the fitted state of a file, its confidence as it was measured."""
        super().restore(ready, manifest, support)
        if self.labels_.unique().tolist() != list(range(self._way)):
            raise ValueError(f"{self._way} classes, but labels {self.labels_.unique().tolist()}")
        self.calibrate = bool(manifest.get("calibrate", False))
        if "confidence" in manifest:
            self.confidence_ = Confidence.of_dict(manifest["confidence"])
            self.false_accepts = manifest["unknown"]["false_accepts"]
            self.unknown_label = manifest["unknown"]["label"]
            if self.false_accepts is not None:
                self._check_strangers(self.false_accepts)

    def _default(self, inputs: Inputs) -> str | None:
        return CHARACTERS if inputs.kind == "images" else super()._default(inputs)

    def _default_head(self, inputs: Inputs) -> str:
        return "protonet" if inputs.kind == "vectors" else "simpleshot"

    def add_examples(self, X: Any, y: Any) -> Self:
        """Learn from more examples, of known or of new classes; only these are embedded."""
        check_is_fitted(self)
        inputs = self._inputs(X, fitting=False)
        labels = self._labels(y, inputs)
        check_alike([self.classes_.tolist()[0], *labels.tolist()])
        known = {label: i for i, label in enumerate(self.classes_.tolist())}
        for label in labels.tolist():
            known.setdefault(label, len(known))
        codes = torch.tensor([known[label] for label in labels.tolist()])
        more = self._supported(inputs, len(self.labels_))
        self._relearn(
            self.support_.joined(more), torch.cat([self.labels_, codes]), np.array(list(known))
        )
        return self

    def add_class(self, X: Any, label: Hashable) -> Self:
        """Learn a new class from its examples; only these are embedded."""
        check_is_fitted(self)
        label = plain_label(label)
        if label in self.classes_.tolist():
            raise InputError(f"there is a class {label!r}: add to it by add_examples.")
        return self.add_examples(X, [label] * read_inputs(X).size)

    def remove_class(self, label: Hashable) -> Self:
        """Forget a class and its examples."""
        check_is_fitted(self)
        classes, label = self.classes_.tolist(), plain_label(label)
        if not isinstance(label, Hashable) or label not in classes:
            raise InputError(f"there is no class {label!r}: the classes are {classes[:20]}.")
        if len(classes) == 2:
            raise InputError(f"without {label!r} there would be 1 class; 2 are needed.")
        code = classes.index(label)
        keep = self.labels_ != code
        codes = self.labels_[keep]
        self._relearn(
            self.support_.take(keep), codes - (codes > code).long(), np.delete(self.classes_, code)
        )
        return self

    def _relearn(self, support: Support, codes: torch.Tensor, classes: NDArray[Any]) -> None:
        with self.as_it_was():
            self.support_, self.classes_ = support, classes
            self._learn(codes, len(classes))
