"""CNP against what its paper says."""

import torch

import kshot


def test_it_counts_the_support_in_its_loss_and_has_a_floor():
    waves = kshot.draw(kshot.load("sinusoid")["test"], kshot.EpisodeSpec(shot=4, query=6), 0, [0])
    learner = kshot.CNP(1, hidden=(16, 16, 16), decoder=(16,))
    mean, std = learner(waves)
    assert mean.shape == (1, 6, 1)
    assert (std > 0.1).all()
    on = learner.adapt(waves.support)
    parts = [
        -torch.distributions.Normal(*on(p.x)).log_prob(p.y) for p in (waves.support, waves.query)
    ]
    expected = torch.cat([p.flatten() for p in parts]).mean()
    assert torch.allclose(learner.loss(waves), expected)
