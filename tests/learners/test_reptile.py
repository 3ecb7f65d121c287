"""Reptile: identities, the two ways to draw mini-batches, the authors' lasting moments."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import kshot
from kshot.errors import ConfigError
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2, query=4):
    spec = kshot.EpisodeSpec(way, shot, query)
    return kshot.draw(gaussians()["train"], spec, 0, range(tasks))


def net(way=3):
    torch.manual_seed(0)
    return nn.Sequential(kshot.nn.MLP(8, hidden=(16,)), nn.Linear(16, way))


def test_with_one_sgd_step_is_joint_training():
    """Pitfall 16: the meta-gradient is inner_lr times the mean gradient over tasks."""
    e = episode(tasks=4)
    learner = kshot.Reptile(
        net(), inner_optimizer="sgd", inner_lr=0.1, inner_steps=1, inner_batch=100
    )
    found = torch.autograd.grad(learner.train().loss(e), list(learner.parameters()))
    joint = nn.functional.cross_entropy(
        learner.head.net(e.support.x.flatten(0, 1)), e.support.y.flatten()
    )
    expected = torch.autograd.grad(joint, list(learner.parameters()))
    for f, x in zip(found, expected, strict=True):
        assert torch.allclose(f, 0.1 * x, atol=1e-6)


def test_needs_no_query():
    e = kshot.draw(gaussians()["train"], kshot.EpisodeSpec(3, 5, 0), 0, [0])
    assert kshot.Reptile(net()).train().loss(e).requires_grad


def test_batches_pass_over_the_support_without_replacement():
    learner = kshot.Reptile(net(), inner_batch=4)
    rows = learner.head._batches(8, 4, torch.tensor([3, 9]))
    assert rows.shape == (2, 4, 4)
    for task in rows:
        assert sorted(task[:2].flatten().tolist()) == list(range(8))
        assert sorted(task[2:].flatten().tolist()) == list(range(8))
    assert not torch.equal(rows[0], rows[1])
    assert torch.equal(rows, learner.head._batches(8, 4, torch.tensor([3, 9])))


def test_batches_may_be_drawn_anew():
    """No repetition within a mini-batch, but between them."""
    learner = kshot.Reptile(net(), inner_batch=5, sampling="replace")
    rows = learner.head._batches(8, 30, torch.tensor([3]))[0]
    assert all(len(set(batch.tolist())) == 5 for batch in rows)
    assert len({tuple(batch.tolist()) for batch in rows}) == 30
    counts = rows.flatten().bincount(minlength=8)
    assert counts.min() > 5


def test_mini_batches_may_differ_at_meta_test():
    learner = kshot.Reptile(net(), inner_batch=5, test_batch=3)
    assert learner.train().head._batches(8, 2, torch.tensor([0])).shape == (1, 2, 5)
    assert learner.eval().head._batches(8, 2, torch.tensor([0])).shape == (1, 2, 3)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_lasting_moments_are_one_adam_for_all_tasks(engine):
    """Two tasks in turn, as torch's Adam that lives on, each from the same start."""
    learner = kshot.Reptile(
        net().double(), inner_lr=1e-2, inner_steps=3, lasting_moments=True, engine=engine
    )
    start = {n: w.detach().clone() for n, w in learner.head.net.named_parameters()}
    ours = []
    episodes = [kshot.draw(gaussians()["train"], kshot.EpisodeSpec(3, 2), 0, [i]) for i in (0, 1)]
    for e in episodes:
        support = e.support.with_x(e.support.x.double())
        ours.append(learner.head.fit(support, key=e.key).weights)
        learner.train().loss(kshot.Episode(support, e.query, e.key))
    weights = {n: nn.Parameter(w.clone()) for n, w in start.items()}
    adam = torch.optim.Adam(weights.values(), lr=1e-2, betas=(0.0, 0.999))
    for e, found in zip(episodes, ours, strict=True):
        with torch.no_grad():
            for name, w in weights.items():
                w.copy_(start[name])
        for _ in range(3):
            adam.zero_grad()
            logits = functional_call(learner.head.net, weights, (e.support.x[0].double(),))
            nn.functional.cross_entropy(logits, e.support.y[0]).backward()
            adam.step()
        for name, w in weights.items():
            assert torch.allclose(found[name][0], w), name


def test_moments_stay_at_meta_test():
    learner = kshot.Reptile(net(), lasting_moments=True)
    e = episode()
    learner.train().loss(e)
    before = {n: b.clone() for n, b in learner.named_buffers()}
    assert before["head.rule.count"] == 5
    learner.eval()(e)
    assert all(torch.equal(b, before[n]) for n, b in learner.named_buffers())


def test_one_query_at_a_time_shares_the_supports_batch():
    """By hand: the query is the last row of a batch of its own with the support."""
    torch.manual_seed(0)
    body = kshot.nn.MLP(8, hidden=(16,), norm=True)
    learner = kshot.Reptile(nn.Sequential(body, nn.Linear(16, 3)), normalization="single").eval()
    e = episode(tasks=1)
    weights = {n: w[0] for n, w in learner.head.fit(e.support, key=e.key).weights.items()}
    found = learner(e)[0]
    for q, logits in zip(e.query.x[0], found, strict=True):
        batch = torch.cat([e.support.x[0], q[None]])
        with kshot.nn.norm.batch_statistics():
            expected = functional_call(learner.head.net, weights, (batch,))[-1]
        assert torch.allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inner_optimizer": "rms"}, "adam"),
        ({"sampling": "all"}, "cycle"),
        ({"inner_steps": -1}, "negative"),
        ({"inner_batch": 0}, "at least 1"),
        ({"inner_lr": 0.0}, "greater than 0"),
        ({"inner_lr": float("inf")}, "finite"),
        ({"inner_optimizer": "sgd", "lasting_moments": True}, "SGD has none"),
    ],
)
def test_impossible_options(options, says):
    with pytest.raises(ConfigError, match=says):
        kshot.Reptile(net(), **options)


def test_lasting_moments_know_an_adapters_weights():
    learner = kshot.Reptile(net(), lasting_moments=True, fast={"name": "lora", "rank": 2})
    loss = learner.loss(episode())
    loss.backward()
    assert loss > 0
    assert learner.head.rule.count == learner.head.steps


def test_each_query_alone_draws_its_own_dropout():
    dropped = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    learner = kshot.Reptile(dropped, normalization="single", test_steps=1).train()
    e = episode(tasks=1)
    same = e.query.x[:, :1].expand(-1, 8, -1)
    assert len(learner.adapt(e.support)(same)[0].unique(dim=0)) > 1
