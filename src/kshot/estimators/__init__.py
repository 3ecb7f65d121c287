"""For people with a few examples: fit, predict, keep."""

from __future__ import annotations

from pathlib import Path

from kshot.errors import CheckpointError, KshotError
from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.model_file import damaged, read_model
from kshot.estimators.regressor import FewShotRegressor
from kshot.training.build import pick_device

__all__ = ["FewShotClassifier", "FewShotRegressor", "load_model"]

_KINDS: dict[str, type[FewShotClassifier] | type[FewShotRegressor]] = {
    kind.__name__: kind for kind in (FewShotClassifier, FewShotRegressor)
}


def load_model(path: str | Path, *, device: str = "auto") -> FewShotClassifier | FewShotRegressor:
    """The fitted model of a file that `save` or `kshot fit` has written; no code of it is run.

    Args:
        path: of the file.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        CheckpointError: if the file is missing, damaged, or was written by a newer kshot.
        ConfigError: for a device that there is not.
    """
    pick_device(device)
    ready, manifest, support = read_model(Path(path))
    if not support:
        raise CheckpointError(
            f"{path} holds a learner that was not fitted: give it as learner, "
            f"FewShotClassifier({str(path)!r}).fit(X, y)."
        )
    kind = _KINDS.get(str(manifest.get("estimator")))
    if kind is None:
        raise damaged(Path(path), f"it holds no {' or '.join(_KINDS)}")
    model = kind(Path(path), device=device)
    try:
        model.restore(ready, manifest, support)
    except (KshotError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise damaged(Path(path), " ".join(str(error).split())[:120]) from error
    return model
