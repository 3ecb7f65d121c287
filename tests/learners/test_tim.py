"""TIM against what its paper says."""

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import EpisodeError
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    spec = kshot.EpisodeSpec(way, shot, query)
    return kshot.draw(gaussians()["train"], spec, 0, range(tasks))


def test_objective_and_gain():
    """Refinement raises the mutual information, and helps on balanced, noisy tasks."""
    noisy = gaussians()["test"]
    noise = torch.randn(noisy.x.shape, generator=torch.Generator().manual_seed(0))
    noisy = noisy.with_x(noisy.x + 2 * noise)
    scores = {}
    for steps in (0, 100):
        learner = kshot.TIM(nn.Identity(), steps=steps, inner_lr=1e-2)
        result = kshot.evaluate(learner, noisy, way=5, shot=1, query=15, episodes=200)
        scores[steps] = result.mean
        assert result.transductive
    assert scores[100] > scores[0] + 0.03


def test_starts_at_the_prototypes_of_unit_vectors():
    e = episode()
    unit = [nn.functional.normalize(p.x, dim=-1) for p in (e.support, e.query)]
    proto = kshot.ProtoNet(nn.Identity())(
        kshot.Episode(e.support.with_x(unit[0]), e.query.with_x(unit[1]), e.key)
    )
    assert torch.allclose(kshot.TIM(nn.Identity(), steps=0).eval()(e), 7.5 * proto, atol=1e-4)


def test_transductive_learners_ask_for_the_queries():
    with pytest.raises(EpisodeError, match="unlabelled=queries"):
        kshot.TIM(nn.Identity()).adapt(episode().support)
