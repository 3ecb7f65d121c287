"""One update of the slow weights."""

import copy

import pytest
import torch

import kshot
from kshot.engine.processes import ALONE
from kshot.errors import DivergedError
from kshot.testing import gaussians
from kshot.training.interrupt import Stop
from kshot.training.outer_step import outer_step

UNEVEN = kshot.EpisodeSpec((2, 5), (1, 3), 5)


def learner():
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(16,), norm=True))


def episodes(index):
    return kshot.draw(gaussians()["train"], UNEVEN, 0, index)


def step(model, episode, stop=None, lr=0.1):
    parameters = list(model.parameters())
    return outer_step(
        model,
        episode,
        torch.optim.SGD(parameters, lr=lr),
        parameters,
        clip=None,
        step=6,
        weight=1.0,
        processes=ALONE,
        stop=stop or Stop(),
    )


def test_a_step_goes_down_the_gradient():
    model, by_hand = learner(), learner()
    loss, asked = step(model, episodes([0, 1, 2]))
    expected = by_hand.loss(episodes([0, 1, 2]))
    expected.backward()
    assert loss == pytest.approx(expected.item())
    assert not asked
    for moved, start in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(moved, start - 0.1 * start.grad, atol=1e-7)


def test_the_wish_to_stop_comes_back():
    stop = Stop()
    stop.at = 0.0
    assert step(learner(), episodes([0]), stop)[1]


def test_a_step_that_fails_changes_nothing():
    model, episode = learner(), episodes([0, 1])
    before = copy.deepcopy(model.state_dict())
    episode.support.x.fill_(float("inf"))
    with pytest.raises(DivergedError, match="at step 7"):
        step(model, episode)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_shares_of_uneven_tasks_move_running_statistics_by_their_share():
    whole, shares = learner(), [learner(), learner()]
    whole.loss(episodes([0, 1, 2]))
    shares[0].loss(episodes([0, 2]))
    shares[1].loss(episodes([1]))
    for name, value in whole.named_buffers():
        first, second = (s.get_buffer(name) for s in shares)
        assert torch.allclose(value, first * 2 / 3 + second / 3, rtol=1e-5, atol=1e-7), name
