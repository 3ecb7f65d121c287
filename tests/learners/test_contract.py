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


def shaped(cls, x, **of):
    shape = kshot.learners.TaskShape(tuple(x.shape[2:]), of.get("way", 0), 6, of.get("y", ()), 9)
    body = nn.Identity() if cls is kshot.CNP else kshot.nn.MLP(x.shape[-1])
    return cls.for_tasks(body, shape).eval()


REGRESSORS = [n for n in learner_names() if "regression" in learner_class(n).tasks]
CLASSIFIERS = [n for n in learner_names() if "classification" in learner_class(n).tasks]


@pytest.mark.parametrize("name", REGRESSORS)
def test_values_have_any_shape(name):
    """One of several axes comes back as it went in, not as one that happens to broadcast."""
    x, y = torch.randn(2, 6, 4), torch.randn(2, 6, 2, 3)
    learner = shaped(learner_class(name), x, y=(2, 3))
    output = learner.adapt(kshot.Examples(x, y))(x[:, :5])
    mean = output.mean if isinstance(output, kshot.types.Gaussian) else output
    assert mean.shape == (2, 5, 2, 3)


@pytest.mark.parametrize("name", ["maml", "anil", "reptile", "meta_lstm", "snail", "cnp"])
def test_values_of_another_shape_are_refused(name):
    """A network of one output would be broadcast over two values without a word."""
    x, y = torch.randn(2, 6, 4), torch.randn(2, 6, 2)
    learner = shaped(learner_class(name), x, y=(1,))
    examples = kshot.Examples(x, y)
    with pytest.raises(EpisodeError, match=r"2\)|two values|values of shape"):
        learner.loss(kshot.Episode(examples, examples, torch.arange(2)))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_queries_of_other_tasks_than_the_supports_are_refused(name):
    x, y = torch.randn(3, 6, 8), torch.arange(6).remainder(3).expand(3, 6).clone()
    learner = shaped(learner_class(name), x, way=3)
    if learner_class(name).observes:
        learner.observe(torch.randn(20, 40))
    support = kshot.Examples(x, y, way=3)
    predictor = learner.adapt(support, support)
    for tasks in (1, 2, 4):
        with pytest.raises(EpisodeError, match=f"queries of {tasks} tasks, but 3 support sets"):
            predictor(torch.randn(tasks, 5, 8))


def test_an_episodes_parts_are_of_the_same_tasks():
    support = kshot.Examples(torch.randn(3, 6, 8), torch.arange(6).expand(3, 6) % 3, way=3)
    learner, fewer = kshot.ProtoNet(nn.Identity()), support.select(torch.arange(2))
    for parts in ((support, fewer, torch.arange(3)), (support, support, torch.arange(2))):
        with pytest.raises(EpisodeError, match="support has 3 tasks, its query"):
            learner.loss(kshot.Episode(*parts))
    values = kshot.Examples(support.x, torch.randn(3, 6, 1))
    with pytest.raises(EpisodeError, match="one has labels and the other values"):
        learner.loss(kshot.Episode(support, values, torch.arange(3)))


def test_a_task_without_a_support_example_is_refused():
    x, y = torch.randn(2, 3, 8), torch.arange(3).expand(2, 3).clone()
    mask = torch.tensor([[True] * 3, [False] * 3])
    for learner in (kshot.ProtoNet(nn.Identity()), kshot.MAML(nn.Linear(8, 3))):
        with pytest.raises(EpisodeError, match="support of task 1 has no example"):
            learner.adapt(kshot.Examples(x, y, mask, way=3))
        with pytest.raises(EpisodeError, match="there is no task"):
            learner.adapt(kshot.Examples(x[:0], y[:0], way=3))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_querys_label_outside_of_the_way_is_refused(label):
    x, y = torch.randn(1, 3, 8), torch.arange(3)[None]
    query = kshot.Examples(x, torch.tensor([[0, label, 2]]), way=3)
    with pytest.raises(EpisodeError, match=f"label {label}, but way=3 allows 0 to 2"):
        kshot.ProtoNet(nn.Identity()).loss(
            kshot.Episode(kshot.Examples(x, y, way=3), query, torch.arange(1))
        )
