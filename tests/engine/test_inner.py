"""The one inner loop against hand values."""

import pytest
import torch

from kshot.engine import SGD, Adam, adapt_weights, over_tasks, trajectory
from kshot.errors import ConfigError, DifferentiationError
from kshot.functional import inner_update


def quadratic(weights, k):
    """L(w) = 1/2 (w - 3)^2, gradient w - 3."""
    return 0.5 * ((weights["w"] - 3) ** 2).sum()


def test_one_step_is_the_hand_value():
    out = adapt_weights(quadratic, {"w": torch.tensor([1.0])}, SGD(0.1), 1)
    assert out["w"].item() == pytest.approx(1.0 - 0.1 * (1.0 - 3.0))


def test_many_steps_follow_the_closed_form():
    out = adapt_weights(quadratic, {"w": torch.tensor([1.0])}, SGD(0.1), 7)
    assert out["w"].item() == pytest.approx(3 + (1 - 3) * 0.9**7, rel=1e-5)


def test_zero_steps_change_nothing():
    start = torch.tensor([1.0])
    assert adapt_weights(quadratic, {"w": start}, SGD(0.1), 0)["w"] is start


def test_trajectory_has_every_step():
    path = list(trajectory(quadratic, {"w": torch.tensor([1.0])}, SGD(0.5), 3))
    assert [weights["w"].item() for weights, _ in path] == [1.0, 2.0, 2.5, 2.75]


def test_unrolled_gradient_goes_through_the_steps_and_detached_does_not():
    for gradient, expected in (("unrolled", 0.9**3), ("detached", 1.0)):
        start = torch.tensor([1.0], requires_grad=True)
        out = adapt_weights(quadratic, {"w": start}, SGD(0.1), 3, gradient=gradient)
        (derivative,) = torch.autograd.grad(out["w"].sum(), start)
        assert derivative.item() == pytest.approx(expected)


def test_none_builds_no_graph_but_still_moves():
    start = torch.tensor([1.0], requires_grad=True)
    out = adapt_weights(quadratic, {"w": start}, SGD(0.1), 3, gradient="none")
    assert not out["w"].requires_grad
    assert out["w"].item() == pytest.approx(3 - 2 * 0.9**3)


def test_gradients_are_real_under_no_grad():
    with torch.no_grad():
        out = adapt_weights(quadratic, {"w": torch.tensor([1.0])}, SGD(0.1), 1)
    assert out["w"].item() == pytest.approx(1.2)


def test_adam_equals_torch():
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([parameter], lr=0.05, betas=(0.5, 0.9))
    for _ in range(5):
        optimizer.zero_grad()
        quadratic({"w": parameter}, 0).backward()
        optimizer.step()
    out = adapt_weights(quadratic, {"w": start}, Adam(0.05, betas=(0.5, 0.9)), 5)
    assert torch.allclose(out["w"], parameter.detach())


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_positive(lr):
    with pytest.raises(ConfigError, match="inner_lr"):
        SGD(lr)


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(DifferentiationError, match="no_grad"):
        adapt_weights(quadratic, {"w": torch.tensor([1.0])}, SGD(0.1), 1)


def test_inner_update_is_the_formula():
    out = inner_update({"w": torch.tensor(2.0)}, {"w": torch.tensor(0.5)}, 0.2)
    assert out["w"].item() == pytest.approx(1.9)


def test_engines_agree_and_unknown_ones_are_refused():
    tree = {"a": torch.arange(6.0).reshape(3, 2), "b": (torch.ones(3, 1),)}

    def fn(t):
        return {"sum": t["a"].sum() + t["b"][0].sum()}

    loop = over_tasks(fn, tree, engine="loop")
    assert torch.equal(loop["sum"], over_tasks(fn, tree, engine="vmap")["sum"])
    with pytest.raises(ConfigError, match="loop"):
        over_tasks(fn, tree, engine="turbo")


def test_adam_can_be_unrolled_through_a_dead_unit():
    start = torch.tensor([1.0, 2.0], requires_grad=True)

    def loss(weights, k):
        return (weights["w"] * torch.tensor([1.0, 0.0])).sum() ** 2

    out = adapt_weights(loss, {"w": start}, Adam(0.1), 2)
    (gradient,) = torch.autograd.grad(out["w"].sum(), start)
    assert torch.isfinite(gradient).all()
