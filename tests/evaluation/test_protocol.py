"""Inductive and transductive at meta-test."""

import pytest
import torch
from torch import nn

import kshot
from kshot.datasets import Dataset
from kshot.errors import ConfigError
from kshot.evaluation import as_protocol
from kshot.evaluation.protocol import seen_classes
from kshot.testing import gaussians

SPEC = kshot.EpisodeSpec(5, 2, 4)


def maml(normalization="task", norm=True):
    torch.manual_seed(0)
    net = nn.Sequential(kshot.nn.MLP(8, norm=norm), nn.Linear(40, 5))
    return kshot.MAML(net, normalization=normalization).eval()


def protonet(normalization="joint", norm=True):
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, norm=norm), normalization=normalization).eval()


def answer(learner):
    with torch.no_grad():
        return learner(kshot.draw(gaussians()["test"], SPEC, 0, range(3)))


@pytest.mark.parametrize(
    ("make", "before", "after"),
    [
        (maml, "task", "support"),
        (maml, "support", "task"),
        (maml, "frozen", "task"),
        (protonet, "joint", "task"),
        (protonet, "task", "support"),
    ],
)
def test_another_protocol_is_what_the_learner_would_be_with_that_policy(make, before, after):
    learner = make(before)
    first = answer(learner)
    other = as_protocol(learner, after == "task")
    assert other.transductive == (after == "task")
    assert other.normalization == after
    torch.testing.assert_close(answer(other), answer(make(after)))
    assert not torch.allclose(answer(other), first)
    # The learner itself has not changed, and there is one set of weights.
    assert learner.normalization == before
    assert torch.equal(answer(learner), first)
    shared = zip(other.parameters(), learner.parameters(), strict=True)
    assert all(a is b for a, b in shared)


def test_a_learner_that_is_as_asked_stays_itself():
    tim = kshot.TIM(kshot.nn.MLP(8))
    for learner, transductive in ((maml(), True), (protonet(), False), (tim, True)):
        assert as_protocol(learner, transductive) is learner


@pytest.mark.parametrize(
    ("learner", "transductive", "says"),
    [
        (kshot.TIM(kshot.nn.MLP(8, norm=True)), False, "without --inductive"),
        (protonet(norm=False), True, "no batch normalisation"),
        (maml(norm=False), True, "no batch normalisation"),
        (kshot.NearestNeighbour(), True, "without --transductive"),
    ],
)
def test_what_batch_normalisation_does_not_decide(learner, transductive, says):
    with pytest.raises(ConfigError, match=says):
        as_protocol(learner, transductive)


def split_of(*labels):
    return Dataset.from_arrays(torch.zeros(2 * len(labels), 3), 2 * labels)["test"]


@pytest.mark.parametrize(
    ("trained", "tested", "seen"),
    [
        (("cat", "dog"), ("dog", "eel"), ["dog"]),
        (("Greek/c01/rot000", "Greek/c02/rot000"), ("Greek/c01", "Greek/c03"), ["Greek/c01"]),
        (("Greek/c01", "Greek/c02"), ("Greek/c02/rot090", "Latin/c02"), ["Greek/c02/rot090"]),
        (("Greek/c01/rot000", "a"), ("Greek/c01/rot180", "b"), ["Greek/c01/rot180"]),
        (("Greek/c01", "Greek/c02"), ("Greek/c03", "Latin/c01"), []),
        ((1, 2), (2, 3), ["2"]),
    ],
)
def test_classes_of_meta_training_are_recognised(trained, tested, seen):
    assert seen_classes([split_of(*trained)], split_of(*tested)) == seen
