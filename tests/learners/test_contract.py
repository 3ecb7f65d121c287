"""What the contract refuses, whatever the method."""

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import EpisodeError
from kshot.learners import learner_class, learner_names


def test_a_query_of_a_class_without_support_is_refused():
    support = kshot.Examples(torch.randn(2, 3, 8), torch.tensor([[0, 1, 2], [0, 1, 1]]), way=3)
    query = kshot.Examples(torch.randn(2, 2, 8), torch.tensor([[2, 1], [1, 2]]), way=3)
    for learner in (kshot.ProtoNet(nn.Identity()), kshot.MAML(nn.Linear(8, 3))):
        with pytest.raises(EpisodeError, match="query of task 1 is of class 2"):
            learner.loss(kshot.Episode(support, query, torch.tensor([0, 1])))


@pytest.mark.parametrize("name", learner_names())
def test_a_task_too_wide_is_refused_by_who_cannot_serve_it(name):
    """The others serve it."""
    cls = learner_class(name)
    if "classification" not in cls.tasks:
        pytest.skip("for regression only")
    shape = kshot.learners.TaskShape((8,), 3, 3, classes=9)
    learner = cls.for_tasks(kshot.nn.MLP(8), shape).eval()
    x, y = torch.randn(1, 4, 8), torch.arange(4)[None]
    support, queries = kshot.Examples(x, y, way=4), kshot.Examples(x, y, way=4)
    if cls.any_way:
        assert learner.adapt(support, queries)(x).shape == (1, 4, 4)
        return
    with pytest.raises(EpisodeError, match=r"learner that serves any way.*ProtoNet"):
        learner.adapt(support, queries)
