"""Hard tasks: what was answered worst is pooled, drawn, kept in the checkpoint, shared by ranks."""

import pytest
import torch
from torch import nn

import kshot
from kshot.errors import ConfigError
from kshot.testing import Planes, gaussians
from kshot.training.hard_tasks import HardTasks

SPEC = kshot.EpisodeSpec(way=4, shot=1, query=3)


@pytest.fixture
def data():
    return gaussians()["train"]


def learner():
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(8,)))


def test_the_worst_class_of_each_task_is_counted(data):
    hard = HardTasks(data, SPEC, 0, learner())
    episode = kshot.draw(data, SPEC, 0, [0, 1])
    query = episode.query
    logits = nn.functional.one_hot(query.y, 4).float()
    logits[0, query.y[0] == 2] = 0.0  # task 0 answers class 2 by its first, wrongly
    logits[0, query.y[0] == 2, 1] = 1.0
    logits[1, query.y[1] == 3] = 0.0
    logits[1, query.y[1] == 3, 0] = 1.0
    hard.watch(logits, query, episode.classes)
    worst = [int(episode.classes[0, 2]), int(episode.classes[1, 3])]
    assert hard.failures.nonzero().flatten().tolist() == sorted(set(worst))
    hard.settle()
    assert hard.pool == sorted(set(worst))
    assert not hard.failures.any()


def test_a_full_pool_makes_the_next_meta_batch_and_is_emptied(data):
    hard = HardTasks(data, SPEC, 0, learner())
    hard.pool = [3, 8, 11, 30, 31]
    episode = hard.draw(range(6))
    assert set(episode.classes.flatten().tolist()) <= set(hard.pool)
    hard.settle()
    assert hard.pool == []
    plain = kshot.draw(data, SPEC, 0, range(6))
    assert torch.equal(hard.draw(range(6)).classes, plain.classes)


def test_preferred_classes_come_first_and_others_fill_up(data):
    episode = kshot.draw(data, SPEC, 0, range(10), prefer=[5, 7])
    for numbers in episode.classes.tolist():
        assert set(numbers[:2]) == {5, 7}
        assert len(set(numbers)) == 4


def train(data, tmp_path=None, **options):
    method = learner()
    history = kshot.meta_train(
        method,
        data,
        way=4,
        shot=1,
        query=3,
        meta_batch=2,
        lr=1e-2,
        hard_tasks=True,
        checkpoint=None if tmp_path is None else tmp_path / "c.safetensors",
        progress=False,
        **options,
    )
    return method, history


def test_training_with_hard_tasks_differs_and_resumes_exactly(data, tmp_path):
    whole, _ = train(data, steps=12)
    plain = learner()
    kshot.meta_train(
        plain, data, way=4, shot=1, query=3, meta_batch=2, lr=1e-2, steps=12, progress=False
    )
    weights = whole.state_dict()
    assert any(not torch.equal(v, plain.state_dict()[k]) for k, v in weights.items())
    stopped = iter(range(100))

    def stop(row, improved):
        if next(stopped) == 6:
            raise KeyboardInterrupt

    train(data, tmp_path, steps=12, on_row=stop)
    resumed, history = train(data, tmp_path, steps=12)
    assert history.steps == 12
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_what_has_no_hard_tasks_is_refused(data):
    with pytest.raises(ConfigError, match="of classes"):
        HardTasks(Planes(), SPEC, 0, learner())
    reptile = kshot.Reptile(nn.Sequential(kshot.nn.MLP(8), nn.Linear(40, 4)))
    with pytest.raises(ConfigError, match="Reptile"):
        HardTasks(data, SPEC, 0, reptile)
