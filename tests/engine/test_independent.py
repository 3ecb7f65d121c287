"""MAML's meta-gradient beside one computed by JAX on the same small network."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import kshot

JAX_PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
case = json.load(sys.stdin)
a = {k: jnp.array(v) for k, v in case["weights"].items()}
def net(p, x):
    return jnp.maximum(x @ p["0.weight"].T + p["0.bias"], 0) @ p["2.weight"].T + p["2.bias"]
def ce(p, x, y):
    return -jnp.mean(jax.nn.log_softmax(net(p, x))[jnp.arange(len(y)), y])
def adapted(p, x, y):
    for _ in range(case["steps"]):
        g = jax.grad(ce)(p, x, y)
        p = {k: p[k] - case["lr"] * g[k] for k in p}
    return p
def outer(p):
    total = 0
    for t in case["tasks"]:
        xs, ys, xq, yq = (jnp.array(t[k]) for k in ("xs", "ys", "xq", "yq"))
        total += ce(adapted(p, xs, ys), xq, yq)
    return total / len(case["tasks"])
value, grad = jax.value_and_grad(outer)(a)
print(json.dumps({"loss": float(value), "grad": {k: v.tolist() for k, v in grad.items()}}))
"""


@pytest.mark.installs
def test_jax_computes_the_same_meta_gradient(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), "jax"],
        check=True,
    )
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    learner = kshot.MAML(net, inner_lr=0.3, inner_steps=2).train()
    episode = kshot.draw(kshot.testing.gaussians()["train"], kshot.EpisodeSpec(4, 2, 3), 0, [0, 1])
    support, query = (p.with_x(p.x[..., :3].double()) for p in (episode.support, episode.query))
    loss = learner.loss(kshot.Episode(support, query, episode.key))
    loss.backward()
    case = {
        "weights": {k: v.tolist() for k, v in net.state_dict().items()},
        "lr": 0.3,
        "steps": 2,
        "tasks": [
            {
                "xs": support.x[i].tolist(),
                "ys": support.y[i].tolist(),
                "xq": query.x[i].tolist(),
                "yq": query.y[i].tolist(),
            }
            for i in range(2)
        ],
    }
    out = subprocess.run(
        [sys.executable, "-c", JAX_PROGRAM],
        input=json.dumps(case),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "", "JAX_PLATFORMS": "cpu"},
    )
    found = json.loads(out.stdout)
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-9)
    for name, parameter in net.named_parameters():
        expected = torch.tensor(found["grad"][name], dtype=torch.float64)
        assert torch.allclose(parameter.grad, expected, rtol=1e-7, atol=1e-10), name
