"""Tasks of any way and shot: Meta-Dataset's rule."""

import numpy as np
import pytest
import torch
from torch import nn

import kshot
from kshot.episodes.any_shot import any_shots

SPEC = kshot.EpisodeSpec(way=(5, 50), shot="any", query=10)
SIZES = (6, 9, 14, 24, 30, 30, 60, 150, 300, 700, 1500, 2000)


def imbalanced(sizes=SIZES):
    """A split whose single feature is the number of the example; equal to its row."""
    labels = [f"class {c}" for c, size in enumerate(sizes) for _ in range(size)]
    x = torch.arange(len(labels)).unsqueeze(1)
    return kshot.Dataset.from_arrays(x, labels, name="imbalanced")["test"]


def counts(examples):
    """Examples of each class, a row per task."""
    return examples.one_hot(torch.int64).sum(1)


def task_sizes(split, e):
    """How many examples the split has of each class of the single task."""
    row_class = np.repeat(np.arange(len(split.sizes)), split.sizes)
    classes = [row_class[int(e.support.x[0, e.support.y[0] == c][0])] for c in range(e.way)]
    return torch.tensor(split.sizes)[classes]


@pytest.mark.parametrize(
    ("sizes", "unit", "units", "shots", "queries"),
    [
        # beta 1/2: 1 + 4 + 19 = 24 examples; 21 beyond one each, shared 4 : 10 : 40.
        ([4, 10, 40], 0.5, [0.5, 0.5, 0.5], [2, 4, 16], 2),
        # beta 1: 3 * 100 examples; 297 shared 1 : 2 : 2.
        ([200, 200, 200], 0.0, [0.0, 0.5, 0.5], [60, 119, 119], 10),
        # 7 * 100 are too many: 500, and 493 / 7 = 70.4.
        ([1000] * 7, 0.0, [0.5] * 7, [71] * 7, 10),
        # A class gives no more than its queries leave; nobody else gets the rest.
        ([20, 20], 0.0, [0.0, 0.9], [5, 10], 10),
        # The least beta: one example each.
        ([20, 300], 1 - 2.0**-53, [0.1, 0.9], [1, 1], 10),
        ([2, 2], 0.3, [0.1, 0.9], [1, 1], 1),
    ],
)
def test_by_hand(sizes, unit, units, shots, queries):
    found, asked = any_shots(np.array(sizes), 10, unit, np.array(units))
    assert (found.tolist(), asked) == (shots, queries)


def test_every_task_keeps_the_rule():
    split = imbalanced()
    supports = []
    for i in range(300):
        e = kshot.draw(split, SPEC, 0, [i])
        sizes = task_sizes(split, e)
        shots, queries = counts(e.support)[0], counts(e.query)[0]
        asked = min(10, int(sizes.min()) // 2)
        assert 5 <= e.way <= len(split.sizes)
        assert (queries == asked).all()
        assert (shots >= 1).all()
        assert (shots + queries <= sizes).all()
        limit = min(500, int((sizes - asked).clamp(max=100).sum()))
        assert e.support.size <= limit
        rows = torch.cat([e.support.x, e.query.x], 1).flatten().tolist()
        assert len(set(rows)) == len(rows)
        supports.append(e.support.size / limit)
    assert min(supports) < 0.15
    assert max(supports) > 0.9


def test_ways_are_uniform_up_to_the_classes_there_are():
    split = imbalanced()
    ways = np.array([kshot.draw(split, SPEC, 0, [i]).way for i in range(600)])
    found = np.bincount(ways, minlength=13)[5:]
    assert found.sum() == 600
    assert found.min() > 45  # 75 expected
    assert found.max() < 110


def test_large_classes_get_more_shots():
    split = imbalanced((40, 40, 40, 400, 400))
    e = kshot.draw(split, SPEC, 0, range(200))
    large = e.support.x.squeeze(-1) >= 120
    real = e.support.real
    assert 3 < (large & real).sum() / (~large & real).sum() < 8


def test_the_same_tasks_for_ever():
    """Golden values: a change here changes every published episode hash."""
    e = kshot.draw(imbalanced(), SPEC, 7, [3])
    assert counts(e.support)[0].tolist() == GOLDEN_SHOTS
    assert e.query.x[0, :5, 0].tolist() == GOLDEN_QUERY
    assert kshot.FrozenEpisodes(imbalanced(), SPEC, 10, 7).hash == GOLDEN_HASH


GOLDEN_SHOTS = [3, 3, 4, 1, 203, 2, 1, 2, 188, 25, 55, 6]
GOLDEN_QUERY = [3, 1866, 3658, 123, 141]
GOLDEN_HASH = "1ceb9634bbf792d4"


def test_a_task_does_not_depend_on_its_batch():
    batch = kshot.draw(imbalanced(), SPEC, 0, [3, 8, 1, 20])
    assert batch.query.mask is not None
    queries_per_class = batch.query.real.sum(1) / batch.support.present().sum(1)
    assert len(queries_per_class.unique()) > 1
    for position, i in enumerate([3, 8, 1, 20]):
        alone = kshot.draw(imbalanced(), SPEC, 0, [i])
        for part in ("support", "query"):
            padded, plain = getattr(batch, part), getattr(alone, part)
            assert plain.mask is None
            assert torch.equal(padded.x[position, padded.real[position]], plain.x[0])
            assert torch.equal(padded.y[position, padded.real[position]], plain.y[0])


def features(sizes=(4, 6, 9, 20, 40)):
    torch.manual_seed(0)
    x = torch.randn(sum(sizes), 6, dtype=torch.float64)
    return kshot.Dataset.from_arrays(x, np.repeat(range(len(sizes)), sizes))["test"]


def protonet():
    return kshot.ProtoNet(kshot.nn.MLP(6)).double()


def maml():
    body = nn.Sequential(kshot.nn.MLP(6, hidden=(8,)), nn.Linear(8, 5))
    return kshot.MAML(body, inner_lr=0.1, inner_steps=2).double()


@pytest.mark.parametrize("make", [protonet, maml])
def test_learners_answer_padded_tasks_as_they_answer_each_alone(make):
    torch.manual_seed(0)
    learner = make()
    spec = kshot.EpisodeSpec(way=(2, 5), shot="any", query=5)
    batch = kshot.draw(features(), spec, 0, range(8))
    together = learner.eval()(batch).detach()
    losses = []
    for i in range(8):
        alone = kshot.draw(features(), spec, 0, [i])
        answer = learner.eval()(alone).detach()[0, :, : alone.way]
        assert torch.allclose(together[i, : alone.query.size, : alone.way], answer)
        losses.append(learner.train().loss(alone).detach())
    assert torch.allclose(learner.loss(batch).detach(), torch.stack(losses).mean())


def test_evaluation_takes_any_shot():
    result = kshot.evaluate(
        kshot.NearestNeighbour(), features(), way=(2, 5), shot="any", query=5, episodes=20
    )
    assert result.task == "2-5-way any-shot"
    assert result.spec["shot"] == "any"
