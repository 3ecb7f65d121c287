"""One update of the slow weights."""

import copy
import sys

import pytest
import torch
from torch import nn

import kshot
from kshot.engine.processes import ALONE, join_processes, local_workers
from kshot.errors import DivergedError
from kshot.interrupt import Stop
from kshot.testing import gaussians
from kshot.training.outer_step import outer_step

UNEVEN = kshot.EpisodeSpec((2, 5), (1, 3), 5)


def learner():
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(16,), norm=True))


def episodes(index):
    return kshot.draw(gaussians()["train"], UNEVEN, 0, index)


def step(model, episode, stop=None, lr=0.1, weight=1.0, decay=0.0, processes=ALONE):
    parameters = list(model.parameters())
    return outer_step(
        model,
        episode,
        torch.optim.SGD(parameters, lr=lr, weight_decay=decay),
        parameters,
        clip=None,
        step=6,
        weight=weight,
        processes=processes,
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


class Partly(kshot.ProtoNet):
    """With a weight that the second process uses, and one that none does."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.seldom, self.never = (nn.Parameter(torch.ones(())) for _ in range(2))

    def loss(self, episode):
        return super().loss(episode) * (self.seldom if len(episode.support.x) == 1 else 1)


def shared_step(processes):
    """Three tasks, of which the second process has one."""
    torch.manual_seed(0)
    model = Partly(kshot.nn.MLP(8, hidden=(16,), norm=True))
    index = processes.share(range(3))
    step(model, episodes(index), weight=len(index) / 3, decay=0.1, processes=processes)
    return model


def test_shares_of_uneven_tasks_give_the_step_of_one_process():
    whole = learner()
    step(whole, episodes([0, 1, 2]), decay=0.1)
    with local_workers(2, [sys.executable, __file__]) as processes:
        shared = shared_step(processes).state_dict()
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, shared[name], rtol=1e-5, atol=1e-6), name
    assert shared["seldom"] != 1
    assert shared["never"] == 1


if __name__ == "__main__":
    shared_step(join_processes())
