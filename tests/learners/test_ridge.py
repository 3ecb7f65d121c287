"""R2-D2: the closed form against the primal one and scikit-learn's."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

import kshot
from kshot.errors import ConfigError
from kshot.functional import ridge_weights
from kshot.testing import Planes, gaussians


@pytest.mark.parametrize("examples", [5, 9, 40])
def test_the_dual_is_the_primal(examples):
    """The Woodbury identity, whichever of both is the smaller."""
    torch.manual_seed(0)
    x, y = torch.randn(2, examples, 9).double(), torch.randn(2, examples, 3).double()
    dual = x.transpose(1, 2) @ torch.linalg.solve(
        x @ x.transpose(1, 2) + 0.7 * torch.eye(examples).double(), y
    )
    primal = torch.linalg.solve(
        x.transpose(1, 2) @ x + 0.7 * torch.eye(9).double(), x.transpose(1, 2) @ y
    )
    assert torch.allclose(dual, primal)
    assert torch.allclose(ridge_weights(x, y, 0.7), primal)


def test_values_are_scikit_learns_ridge():
    e = kshot.draw(Planes(), kshot.EpisodeSpec(shot=6), 0, [0])
    found = kshot.R2D2(nn.Identity(), penalty=0.5, scale=None).adapt(e.support)(e.query.x)

    def with_ones(x):
        return torch.cat([x[0], torch.ones(x.shape[1], 1)], 1).numpy()

    ridge = Ridge(alpha=0.5, fit_intercept=False, solver="cholesky")
    ridge.fit(with_ones(e.support.x), e.support.y[0].numpy())
    expected = torch.from_numpy(ridge.predict(with_ones(e.query.x))).reshape(1, -1, 1)
    assert torch.allclose(found, expected.float(), atol=1e-4)


def test_scale_multiplies_the_answers():
    e = kshot.draw(gaussians()["train"], kshot.EpisodeSpec(3, 2, 4), 0, range(2))
    one, five = (kshot.R2D2(nn.Identity(), scale=s)(e) for s in (1.0, 5.0))
    assert torch.allclose(5 * one, five, atol=1e-5)


@pytest.mark.parametrize("options", [{"penalty": 0.0}, {"scale": -1.0}])
def test_impossible_options(options):
    with pytest.raises(ConfigError, match="greater than 0"):
        kshot.R2D2(nn.Identity(), **options)
