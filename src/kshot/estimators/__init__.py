"""For people with a few examples: fit, predict, keep."""

from kshot.estimators.classifier import FewShotClassifier
from kshot.estimators.regressor import FewShotRegressor

__all__ = ["FewShotClassifier", "FewShotRegressor"]
