"""MAML: identities, the meta-gradient, and the paper's traps."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import kshot
from kshot.errors import ConfigError, EpisodeError
from kshot.testing import gaussians


def episode(tasks=2, way=3, shot=2):
    e = kshot.draw(gaussians()["train"], kshot.EpisodeSpec(way, shot, 4), 0, range(tasks))
    support, query = (p.with_x(p.x.double()) for p in (e.support, e.query))
    return kshot.Episode(support, query, e.key)


def net(norm=False):
    torch.manual_seed(0)
    body = kshot.nn.MLP(8, hidden=(6,), norm=norm)
    # A smooth activation: finite differences near a kink of ReLU would compare nothing.
    return nn.Sequential(body.layers[:-1], nn.Tanh(), nn.Linear(6, 3)).double()


def meta_gradient(learner, e):
    loss = learner.train().loss(e)
    return torch.autograd.grad(loss, list(learner.parameters()))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("norm", [False, True])
def test_meta_gradient_equals_finite_differences(engine, norm):
    e = episode()
    learner = kshot.MAML(net(norm), inner_lr=0.5, inner_steps=2, engine=engine)
    gradients = meta_gradient(learner, e)
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        flat, h = parameter.data.view(-1), 1e-5
        for i in range(0, flat.numel(), max(1, flat.numel() // 5)):
            kept = flat[i].item()
            flat[i] = kept + h
            above = learner.loss(e).item()
            flat[i] = kept - h
            below = learner.loss(e).item()
            flat[i] = kept
            found = gradient.reshape(-1)[i].item()
            assert (above - below) / (2 * h) == pytest.approx(found, rel=1e-4, abs=1e-7)


def test_first_order_differs_from_second_order_on_a_curved_loss():
    e = episode()
    second = meta_gradient(kshot.MAML(net(), inner_lr=0.5), e)
    first = meta_gradient(kshot.MAML(net(), inner_lr=0.5, first_order=True), e)
    assert not torch.allclose(second[0], first[0])


def test_first_order_is_the_query_gradient_at_the_adapted_weights():
    e = episode(tasks=1)
    learner = kshot.MAML(net(), inner_lr=0.5, first_order=True)
    found = meta_gradient(learner, e)
    weights = learner.head.fit(e.support, key=e.key).weights
    adapted = {n: w[0].detach().requires_grad_() for n, w in weights.items()}
    loss = nn.functional.cross_entropy(
        functional_call(learner.head.net, adapted, (e.query.x[0],)), e.query.y[0]
    )
    expected = torch.autograd.grad(loss, list(adapted.values()))
    for f, x in zip(found, expected, strict=True):
        assert torch.allclose(f, x)


def test_zero_steps_are_the_plain_network():
    e = episode()
    plain = net()
    learner = kshot.MAML(plain, inner_steps=0)
    assert torch.allclose(learner(e)[0], plain(e.query.x[0]))


def test_sum_over_shot_is_way_times_the_mean():
    """Pitfall 1: the authors' alpha = 0.4 at 3-way is 1.2 for the mean."""
    e = episode()
    sums = kshot.MAML(net(), inner_lr=0.4, reduction="sum/shot")
    means = kshot.MAML(net(), inner_lr=1.2, reduction="mean")
    assert torch.allclose(sums(e), means(e))


def test_norm_parameters_stay_out_of_the_inner_loop_unless_asked():
    """Pitfall 4: batch normalisation's own parameters are slow in MAML's code."""
    e = episode()
    slow = kshot.MAML(net(norm=True), inner_lr=0.5)
    fast = kshot.MAML(net(norm=True), inner_lr=0.5, adapt_norm=True)
    extra = set(fast.head.fast_names) - set(slow.head.fast_names)
    assert len(extra) == 2
    before = fast.head.fast_weights()
    moved = fast.eval().head.fit(e.support, key=e.key).weights
    assert all(not torch.equal(moved[n][0], before[n]) for n in extra)


def test_steps_may_differ_at_test():
    e = episode()
    learner = kshot.MAML(net(), inner_lr=0.5, inner_steps=1, test_steps=6)
    six = kshot.MAML(net(), inner_lr=0.5, inner_steps=6)
    assert torch.allclose(learner.eval()(e), six.eval()(e))
    assert not torch.allclose(learner.train()(e), six.train()(e))


def test_task_statistics_are_transductive_and_support_statistics_are_not():
    """Pitfall 3; also that the two policies give different answers."""
    e = episode()
    task = kshot.MAML(net(norm=True), inner_lr=0.5).eval()
    support = kshot.MAML(net(norm=True), inner_lr=0.5, normalization="support").eval()
    assert task.transductive
    assert not support.transductive
    assert not torch.allclose(task(e), support(e))


def test_a_narrower_task_is_served_and_a_wider_one_is_refused():
    learner = kshot.MAML(net()).eval()
    assert learner(episode(way=2)).shape[-1] == 2
    with pytest.raises(EpisodeError, match="way=4"):
        learner(episode(way=4))


@pytest.mark.parametrize(
    "options",
    [
        {"inner_lr": 0.0},
        {"inner_lr": -0.1},
        {"inner_steps": -1},
        {"normalization": "joint"},
        {"normalization": "batch"},
        {"reduction": "sum"},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ConfigError):
        kshot.MAML(net(), **options)


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(kshot.errors.DifferentiationError):
        kshot.MAML(net()).eval()(episode())


def test_foreign_batch_norm_is_converted_with_a_word():
    with pytest.warns(UserWarning, match="one task's"):
        learner = kshot.ProtoNet(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)))
    assert isinstance(learner.encoder[1], kshot.nn.BatchNorm)


def test_every_whole_network_learner_converts_with_a_word():
    for cls, options in (
        (kshot.MAML, {}),
        (kshot.Reptile, {}),
        (kshot.MetaLSTM, {}),
    ):
        network = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
        with pytest.warns(UserWarning, match="one task's"):
            cls(network, **options)


def test_frozen_parameters_do_not_move():
    network = net()
    network[0][1].requires_grad_(False)
    learner = kshot.MAML(network, inner_lr=0.5).eval()
    assert "0.1.weight" not in learner.head.fit(episode().support, key=torch.arange(2)).weights


def test_sum_over_shot_counts_the_ways_of_each_task():
    """A narrow task in a wide meta-batch adapts as it does alone."""
    spec = kshot.EpisodeSpec((2, 3), 2, 4)
    e = kshot.draw(gaussians()["train"], spec, 0, range(6))
    ways = e.support.present().sum(1)
    assert set(ways.tolist()) == {2, 3}
    learner = kshot.MAML(net().float(), inner_lr=0.4, reduction="sum/shot").eval()
    i = int((ways == 2).nonzero()[0])
    alone = kshot.draw(gaussians()["train"], spec, 0, [i])
    found = learner(e)[i, : alone.query.size, :2]
    assert torch.allclose(found, learner(alone)[0], atol=1e-5)


def test_scalar_values_need_an_axis():
    with pytest.raises(EpisodeError, match=r"y\[\.\.\., None\]"):
        kshot.Examples(torch.randn(2, 5, 1), torch.randn(2, 5))


def test_without_second_order_it_is_called_fomaml():
    assert kshot.MAML(net(), first_order=True).title == "FOMAML"
    assert kshot.MAML(net()).title == "MAML"


def test_moving_the_last_layer_alone_is_anil():
    torch.manual_seed(0)
    encoder, last = kshot.nn.MLP(8, hidden=(16,)), nn.Linear(16, 4)
    maml = kshot.MAML(
        nn.Sequential(encoder, last), inner_lr=0.3, inner_steps=3, fast="last"
    ).double()
    anil = kshot.ANIL(encoder, features=16, way=4, inner_lr=0.3, inner_steps=3).double()
    anil.head.net.load_state_dict(last.state_dict())
    e = episode(way=4)
    torch.testing.assert_close(maml(e), anil(e))
    maml.loss(e).backward()
    found = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    anil.loss(e).backward()
    torch.testing.assert_close(found, [p.grad for p in encoder.parameters()])


def test_what_is_fast_may_be_an_adapter_and_the_last_layer():
    net = nn.Sequential(kshot.nn.MLP(8, hidden=(16,)), nn.Linear(16, 4))
    learner = kshot.MAML(net, inner_lr=0.3, fast={"name": "lora", "rank": 2})
    kinds = {name.rpartition(".")[2] for name in learner.head.fast_names}
    assert kinds == {"up", "down", "original", "bias"}
    assert not any("0.layers.1.bias" in name for name in learner.head.fast_names)


def test_an_unknown_adapter_is_refused_by_name():
    net = nn.Sequential(kshot.nn.MLP(8), nn.Linear(40, 4))
    with pytest.raises(ConfigError, match="did you mean 'lora'"):
        kshot.MAML(net, fast="loras")


def test_a_wider_net_is_told_by_its_output_not_by_the_order_of_its_layers():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(16, 3), nn.Linear(8, 16)

        def forward(self, x):
            return self.last(self.first(x))

    support = kshot.Examples(torch.randn(1, 5, 8), torch.arange(5)[None], way=5)
    for steps in (0, 1):
        learner = kshot.MAML(Backwards(), inner_steps=steps).eval()
        with pytest.raises(EpisodeError, match="network ends in 3 outputs"):
            learner.adapt(support)(support.x)


@pytest.mark.parametrize("steps", [1.5, True, -1])
def test_inner_steps_are_whole_numbers(steps):
    with pytest.raises(ConfigError, match="whole number that is not negative"):
        kshot.MAML(net(), inner_steps=steps)


def test_a_network_with_nothing_to_move_is_refused():
    for empty in (nn.ReLU(), nn.Linear(8, 3).requires_grad_(False)):
        for cls in (kshot.MAML, kshot.Reptile):
            with pytest.raises(ConfigError, match="no weights that a task may move"):
                cls(empty)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_one_example_is_not_normalised_by_itself(engine):
    """Its own statistics would make the answer the same for whatever it is."""
    model = nn.Sequential(nn.Linear(8, 6), kshot.nn.BatchNorm(6), nn.Linear(6, 3)).double()
    learner = kshot.MAML(model, engine=engine).eval()
    e = episode(tasks=2)
    predict = learner.adapt(e.support)
    with pytest.raises(EpisodeError, match="one example here"):
        predict(e.query.x[:, :1])
    assert predict(e.query.x[:, :2]).shape == (2, 2, 3)
