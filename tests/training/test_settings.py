"""A checkpoint is refused by a training that would go on in another way."""

import os
import subprocess
import sys
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kshot
from kshot.episodes import color_jitter, random_affine
from kshot.errors import CheckpointError
from kshot.testing import gaussians
from kshot.training.settings import describe, of_learner


def protonet(**options):
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(16,), norm=True), **options)


def maml(**options):
    torch.manual_seed(0)
    return kshot.MAML(nn.Sequential(kshot.nn.MLP(8), nn.Linear(40, 5)), **options)


def adamw(decay):
    return lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=decay)


def train(checkpoint, model, data=None, **options):
    data = gaussians()["train"] if data is None else data
    kshot.meta_train(
        model,
        data,
        checkpoint=checkpoint,
        **{"query": 5, "steps": 2, "progress": False} | options,
    )


def partly_frozen():
    model = protonet()
    model.encoder.layers[1].weight.requires_grad_(False)
    return model


def partly_eval():
    model = protonet()
    model.encoder.eval()
    return model


LEARNERS = {
    "inner_lr": (maml, partial(maml, inner_lr=0.1), r"head\.rule=SGD\(lr=0\.4\)"),
    "inner_steps": (maml, partial(maml, inner_steps=2), r"head\.steps=1, but"),
    "first_order": (maml, partial(maml, first_order=True), r"head\.gradient='unrolled'"),
    "normalization": (protonet, partial(protonet, normalization="task"), "normalization='joint'"),
    "another class": (protonet, partial(kshot.TIM, kshot.nn.MLP(8)), "learner=ProtoNet"),
    "a frozen part": (protonet, partly_frozen, r"frozen=\[\], but"),
    "a mode": (protonet, partly_eval, r"encoder\.training=True, but"),
}


@pytest.mark.parametrize("case", LEARNERS)
def test_other_learners(tmp_path, case):
    first, second, says = LEARNERS[case]
    train(tmp_path / "c", first())
    with pytest.raises(CheckpointError, match=says):
        train(tmp_path / "c", second())


OPTIONS = {
    "optimizer groups": ({"optimizer": adamw(0.1)}, {"optimizer": adamw(0.2)}, "weight_decay=0.1"),
    "way": ({"way": 5}, {"way": (2, 5)}, "way="),
    "imbalanced": ({"shot": (1, 2)}, {"shot": (1, 2), "imbalanced": True}, "imbalanced"),
    "meta_batch": ({}, {"meta_batch": 2}, "meta_batch=1, but this one has meta_batch=2"),
    "clip": ({}, {"clip": 1.0}, "clip=None"),
    "patience": ({}, {"patience": 3}, "patience=None"),
    "steps": ({}, {"steps": 30}, "steps=2, but this one has steps=30"),
    "lr": ({}, {"lr": 1e-4}, r"lr=0\.001, but this one has optimizer\.0\.lr=0\.0001"),
    "seed": ({}, {"seed": 5}, "seed=0, but this one has seed=5"),
    "shot": ({}, {"shot": 2}, "shot=1, but this one has shot=2"),
    "optimizer": ({}, {"optimizer": "sgd"}, "optimizer=Adam"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_other_options(tmp_path, case):
    first, second, says = OPTIONS[case]
    train(tmp_path / "c", protonet(), **first)
    with pytest.raises(CheckpointError, match=says):
        train(tmp_path / "c", protonet(), **second)


def test_other_data_are_named(tmp_path):
    data = gaussians()["train"]
    train(tmp_path / "c", protonet(), data)
    with pytest.raises(CheckpointError, match=r"on other data.*fingerprint"):
        train(tmp_path / "c", protonet(), replace(data, x=data.x * 2))


def test_other_augmentations(tmp_path):
    glyphs = kshot.load("glyphs")["train"]

    def go(augmentation):
        torch.manual_seed(0)
        model = kshot.ProtoNet(nn.Sequential(nn.Flatten(), nn.Linear(784, 4)))
        train(tmp_path / "c", model, glyphs, query=1, augmentations=[augmentation])

    go(random_affine())
    go(random_affine())
    for other in (random_affine(degrees=20.0), color_jitter()):
        with pytest.raises(CheckpointError, match="augmentations="):
            go(other)


class Colour(Enum):
    RED = 1
    BLUE = 2


class Decay:
    def __init__(self, weight):
        self.weight = weight

    def optimizer(self, parameters):
        return torch.optim.AdamW(parameters, weight_decay=self.weight)


def closing_over(value):
    def function():
        return value

    return function


PAIRS = [
    (1, 2),
    ("a", b"a"),
    (set("abcdefgh"), set("abcdefgx")),
    (torch.arange(3), torch.arange(1, 4)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(1, 2, dtype=torch.bfloat16)),
    (np.arange(3), np.arange(3.0)),
    (np.int64(1), np.int64(2)),
    (torch.float32, torch.float64),
    (torch.device("cpu"), torch.device("cuda", 1)),
    (np.dtype("uint8"), np.dtype("uint16")),
    (Colour.RED, Colour.BLUE),
    (Path("a"), Path("b")),
    (Decay(1), Decay(2)),
    (Decay(1).optimizer, Decay(2).optimizer),
    (closing_over(1), closing_over(2)),
    (partial(max, 1), partial(max, 2)),
    (lambda x: x in {"a", "b", "c"}, lambda x: x in {"a", "b", "d"}),
    (lambda x, y=1: x, lambda x, y=2: x),
    (random_affine(degrees=2.0), random_affine(degrees=3.0)),
]


def test_other_settings_have_other_descriptions():
    for first, second in PAIRS:
        assert describe(first) != describe(second)
        assert describe({"key": [first]}) != describe({"key": [second]})


def descriptions():
    return [*(describe(first) for first, _ in PAIRS), *of_learner(maml()).values()]


def test_descriptions_say_the_same_in_every_process():
    """Here in one whose sets have another order."""
    other = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert other.stdout.splitlines() == descriptions()


if __name__ == "__main__":
    print(*descriptions(), sep="\n")
