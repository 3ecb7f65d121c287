"""scikit-learn's own checks of its contract."""

from sklearn.utils.estimator_checks import parametrize_with_checks

import kshot


@parametrize_with_checks([kshot.FewShotClassifier(), kshot.FewShotRegressor()])
def test_contract(estimator, check):
    check(estimator)
