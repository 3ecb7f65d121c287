"""A few-shot regressor with scikit-learn's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_consistent_length

from kshot.errors import ConfigError, InputError
from kshot.estimators.base import AUTO, FewShotEstimator
from kshot.estimators.forms import check_moderate
from kshot.estimators.inputs import Inputs
from kshot.learners import TaskShape
from kshot.types import Gaussian


class FewShotRegressor(RegressorMixin, FewShotEstimator):  # type: ignore[misc]
    """Learns values from a few examples: of photos, texts or rows of numbers.

    As `FewShotClassifier`, with values in the place of labels.

    Args:
        learner: a run folder of `kshot train`, a `MetaLearner`, or a method for regression by name
            (`kshot learners`), with options as a table; `r2d2`, a ridge regression, by default.
        encoder: for a method by name: a pretrained network by name, or a module. Vectors need none.
        standardize: give each column of vectors mean 0 and deviation 1, by those that are fitted.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Attributes:
        n_features_in_: the length of vectors.
        columns_: names of these numbers, where they come from a table (`kshot fit`).

    Example:
        >>> import kshot
        >>> from sklearn.datasets import load_diabetes
        >>> x, y = load_diabetes(return_X_y=True)
        >>> model = kshot.FewShotRegressor({"name": "r2d2", "penalty": 0.01}).fit(x[:50], y[:50])
        >>> round(model.score(x[50:], y[50:]), 1)
        0.4
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Learn the values `y`, `(examples,)` or `(examples, values)`.

        Args:
            X: the examples: vectors `(examples, features)`, images, or texts.
            y: the values of each.

        Raises:
            InputError: (a ValueError) for examples or values that cannot be used.
            ConfigError: for a learner or encoder that cannot be had.
        """
        if self.learner == AUTO:
            raise ConfigError(
                "learner='auto' chooses a classifier: name a method for values, such as r2d2."
            )
        if y is None:
            raise InputError("requires y to be passed, but the target y is None: give the values.")
        with self.as_it_was():
            inputs = self._inputs(X, fitting=True)
            values = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
            check_consistent_length(range(inputs.size), values)
            self._flat = values.ndim == 1
            columns = values.reshape(len(values), -1)
            check_moderate(columns, " in y")
            rows = torch.tensor(columns)
            shape = TaskShape((), 0, inputs.size, (rows.shape[1],))
            # A method that is solved or trained at a rate is for values of about 1.
            self.mean_, spread = rows.mean(0), rows.std(0, correction=0)
            self.scale_ = torch.where(spread > 0, spread, torch.ones_like(spread))
            y = ((rows - self.mean_) / self.scale_).to(torch.get_default_dtype())
            self._adapt(self._get_ready(inputs, shape), inputs, y)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The values of each example; of an uncertain learner their mean."""
        parts = [
            output.mean if isinstance(output, Gaussian) else output for output in self._answers(X)
        ]
        rows = torch.cat(parts, 1).squeeze(0).cpu().double() * self.scale_ + self.mean_
        values = np.asarray(rows)
        return values[:, 0] if self._flat else values

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @property
    def _way(self) -> int:
        return 0

    def _facts(self) -> dict[str, Any]:
        scaling = {"mean": self.mean_.tolist(), "scale": self.scale_.tolist()}
        return {"values": {**scaling, "flat": self._flat}}

    def _restore_facts(self, manifest: Mapping[str, Any]) -> None:
        values = manifest["values"]
        self.mean_, self.scale_ = (
            torch.tensor(values[name], dtype=torch.float64) for name in ("mean", "scale")
        )
        shape = self.ready_.shape.y_shape
        if not (
            self.mean_.shape == self.scale_.shape == shape
            and self.mean_.isfinite().all()
            and (self.scale_.isfinite() & (self.scale_ > 0)).all()
        ):
            raise ValueError(f"means and deviations that are none, of values {shape}")
        self._flat = bool(values["flat"])

    def _default_head(self, inputs: Inputs) -> str:
        return "r2d2"
