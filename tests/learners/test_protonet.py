"""Prototypical Networks: identities and the paper's details."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import nn

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.functional import class_means, prototypical_loss
from kshot.testing import gaussians

SPEC = kshot.EpisodeSpec(way=5, shot=4, query=6)


def episode(tasks=3):
    return kshot.draw(gaussians()["test"], SPEC, 0, range(tasks))


def test_identity_encoder_is_scikit_learns_nearest_centroid():
    e = episode(8)
    answers = kshot.ProtoNet(nn.Identity())(e).argmax(-1)
    for t in range(8):
        oracle = NearestCentroid().fit(e.support.x[t].numpy(), e.support.y[t].numpy())
        assert np.array_equal(oracle.predict(e.query.x[t].numpy()), answers[t].numpy())


def test_squared_euclidean_is_a_linear_classifier():
    """-||z - c||^2 and 2 c z - ||c||^2 differ by ||z||^2, which all classes share."""
    e = episode()
    logits = kshot.ProtoNet(nn.Identity())(e)
    c = class_means(e.support.x, e.support.one_hot(torch.float32))
    linear = 2 * e.query.x @ c.transpose(1, 2) - (c**2).sum(-1).unsqueeze(1)
    assert torch.allclose(logits.softmax(-1), linear.softmax(-1), atol=1e-5)


def test_distance_is_squared_and_mean_is_over_shots():
    """Pitfall 11: a query at distance 2 from its prototype has logit -4, not -2."""
    support = kshot.Examples(
        torch.tensor([[[0.0], [2.0], [9.0], [11.0]]]), torch.tensor([[0, 0, 1, 1]]), way=2
    )
    logits = kshot.ProtoNet(nn.Identity()).adapt(support)(torch.tensor([[[3.0]]]))
    assert logits.tolist() == [[[-4.0, -49.0]]]


def test_functional_loss_is_the_learners():
    e = episode()
    expected = kshot.ProtoNet(nn.Identity()).loss(e)
    found = prototypical_loss(e.support.x, e.support.y, e.query.x, e.query.y, 5)
    assert torch.allclose(found, expected)


def test_train_way_may_differ_from_test_way():
    torch.manual_seed(0)
    learner = kshot.ProtoNet(kshot.nn.MLP(8))
    kshot.meta_train(learner, gaussians(), way=12, query=3, steps=5, progress=False)
    assert learner(kshot.draw(gaussians()["test"], kshot.EpisodeSpec(3), 0, [0])).shape[-1] == 3


def test_cosine_ignores_length():
    e = episode()
    learner = kshot.ProtoNet(nn.Identity(), distance="cosine")
    longer = kshot.Episode(e.support, e.query.with_x(7 * e.query.x), e.key)
    assert torch.allclose(learner(longer), learner(e), atol=1e-5)


def test_a_factor_on_the_distances_is_learned():
    e = episode()
    learner = kshot.ProtoNet(nn.Identity(), scale=0.25)
    assert torch.allclose(learner(e), 0.25 * kshot.ProtoNet(nn.Identity())(e))
    learner.loss(e).backward()
    assert [p.grad.item() != 0 for p in learner.parameters()] == [True]


@pytest.mark.parametrize("options", [{"distance": "manhattan"}, {"scale": 0.0}])
def test_impossible_options(options):
    with pytest.raises(ConfigError):
        kshot.ProtoNet(nn.Identity(), **options)


def test_regression_is_refused_with_a_reason():
    waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=5), 0, [0])
    with pytest.raises(EpisodeError, match="classification"):
        kshot.ProtoNet(nn.Identity()).adapt(waves.support)


def test_dictionary_features_reach_the_encoder():
    class Joined(nn.Module):
        def forward(self, x):
            return torch.cat([x["a"], x["b"].float()], -1)

    x = {"a": torch.randn(40, 3), "b": torch.randint(0, 9, (40, 2))}
    data = kshot.Dataset.from_arrays(x, [i // 10 for i in range(40)])
    e = kshot.draw(data["test"], kshot.EpisodeSpec(4, 2, 3), 0, [0, 1])
    assert kshot.ProtoNet(Joined())(e).shape == (2, 12, 4)
