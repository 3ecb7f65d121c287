"""Every learner through the one suite."""

from collections.abc import Callable

import pytest
from torch import nn

import kshot
from kshot.errors import ConfigError
from kshot.learners import TaskShape
from kshot.nn.adapters import add_adapter, freeze_all_but
from kshot.testing import CHECKS, FEATURES, Factory, check_learner, check_learns


def body() -> nn.Module:
    return kshot.nn.MLP(FEATURES, hidden=(32, 32))


def body_with_norm() -> nn.Module:
    return kshot.nn.MLP(FEATURES, hidden=(32, 32), norm=True)


def changed(adapter: str) -> Callable[[], nn.Module]:
    """A frozen body with an adapter that the outer loop moves."""

    def encoder() -> nn.Module:
        net = body()
        freeze_all_but(net, add_adapter(net, adapter))
        return net

    return encoder


def of(
    cls: type[kshot.MetaLearner], encoder: Callable[[], nn.Module], **options: object
) -> Factory:
    return lambda shape: cls.for_tasks(encoder(), shape, **options)


def regressor(make: Factory) -> Factory:
    """The same learner, for regression only: the suite then draws functions."""

    def factory(shape: TaskShape) -> kshot.MetaLearner:
        if shape.way:
            raise ConfigError("for regression")
        return make(shape)

    return factory


LEARNERS: dict[str, Factory] = {
    "protonet": of(kshot.ProtoNet, body_with_norm),
    "protonet-cosine": of(kshot.ProtoNet, body, distance="cosine"),
    "protonet-task": of(kshot.ProtoNet, body_with_norm, normalization="task"),
    "protonet-support": of(kshot.ProtoNet, body_with_norm, normalization="support"),
    "matching": of(kshot.MatchingNet, body_with_norm, temperature=0.1),
    "matching-fce": of(kshot.MatchingNet, body_with_norm, temperature=0.1, fce=True),
    "matching-regression": regressor(of(kshot.MatchingNet, body, temperature=0.1, fce=True)),
    "r2d2": of(kshot.R2D2, body_with_norm),
    "r2d2-regression": regressor(of(kshot.R2D2, body)),
    "anil": of(kshot.ANIL, body, inner_lr=0.4, inner_steps=2),
    "anil-norm": of(kshot.ANIL, body_with_norm, inner_lr=0.4, test_steps=3),
    "anil-regression": regressor(of(kshot.ANIL, body, inner_lr=0.05, inner_steps=3)),
    "maml": of(kshot.MAML, body, inner_lr=0.1, inner_steps=2),
    "maml-norm": of(kshot.MAML, body_with_norm, inner_lr=0.4, test_steps=3),
    "maml-support": of(kshot.MAML, body_with_norm, inner_lr=0.4, normalization="support"),
    "fomaml": of(kshot.MAML, body, inner_lr=0.1, inner_steps=2, first_order=True),
    "maml-sum": of(kshot.MAML, body, inner_lr=0.025, inner_steps=2, reduction="sum/shot"),
    "maml-regression": regressor(of(kshot.MAML, body, inner_lr=0.05, inner_steps=3)),
    "maml-lora": of(kshot.MAML, body, inner_lr=0.1, inner_steps=2, fast="lora"),
    "maml-last": of(kshot.MAML, body, inner_lr=0.4, inner_steps=2, fast="last"),
    "maml-slow-scale-shift": of(kshot.MAML, changed("scale_shift"), inner_lr=0.4, inner_steps=2),
    "protonet-slow-film": of(kshot.ProtoNet, changed("film"), normalization="frozen"),
    "reptile-film": of(
        kshot.Reptile, body, inner_lr=1e-2, inner_steps=8, inner_batch=6, fast="film"
    ),
    "meta-lstm-bias": of(kshot.MetaLSTM, body, inner_steps=4, fast="bias"),
    "reptile-regression": regressor(of(kshot.Reptile, body, inner_lr=3e-2, inner_batch=2)),
    "meta-lstm-regression": regressor(of(kshot.MetaLSTM, body, inner_steps=4)),
    "reptile-single": of(
        kshot.Reptile,
        body_with_norm,
        inner_lr=1e-2,
        inner_steps=8,
        inner_batch=6,
        test_batch=4,
        normalization="single",
        sampling="replace",
    ),
    "reptile-sgd": of(
        kshot.Reptile, body, inner_optimizer="sgd", inner_lr=0.1, inner_steps=8, inner_batch=6
    ),
    "reptile": of(kshot.Reptile, body, inner_lr=1e-2, inner_steps=8, test_steps=30, inner_batch=6),
    "meta-lstm": of(kshot.MetaLSTM, body, inner_steps=4),
    "snail": of(kshot.SNAIL, body_with_norm, filters=32),
    "snail-regression": regressor(of(kshot.SNAIL, nn.Identity, filters=32)),
    "tim": of(kshot.TIM, body_with_norm, steps=60),
    "cnp": of(kshot.CNP, nn.Identity, hidden=(64, 64, 64), decoder=(64, 64)),
    "baseline": of(kshot.Baseline, body_with_norm),
    "baseline++": of(kshot.BaselinePlusPlus, body_with_norm),
    "mtl": of(kshot.MTL, body, inner_lr=0.4, inner_steps=3),
    "mtl-norm": of(kshot.MTL, body_with_norm, inner_lr=0.4, inner_steps=3),
    "mtl-first-order": of(kshot.MTL, body, inner_lr=0.4, inner_steps=5, first_order=True),
    "pmf": of(kshot.PMF, body_with_norm, inner_lr=1e-3, test_steps=3),
    "pmf-film": of(kshot.PMF, body_with_norm, inner_lr=1e-2, test_steps=3, fast="film"),
    "rfs": of(kshot.RFS, body_with_norm),
    "meta-baseline": of(kshot.MetaBaseline, body_with_norm),
    "simpleshot": of(kshot.SimpleShot, body_with_norm),
    "set-metric": of(kshot.SetMetric, nn.Identity),
    "set-metric-encoder": of(kshot.SetMetric, body),
    "tip-adapter": of(kshot.TipAdapter, body),
    "tip-adapter-f": of(kshot.TipAdapter, body, inner_steps=3),
    "fine-tuning": of(kshot.FineTuning, body_with_norm, inner_lr=0.1),
    "fine-tuning-last": of(kshot.FineTuning, body, fast="last", inner_lr=0.1, inner_batch=5),
    "nearest-neighbour": lambda shape: kshot.NearestNeighbour(),
}


# A sequence learner needs more tasks per step than the others.
TRAINING = {"snail": {"lr": 5e-3, "meta_batch": 16}}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", LEARNERS)
def test_learner(name: str, check: Callable[[Factory], None]) -> None:
    check(LEARNERS[name])


@pytest.mark.parametrize("name", LEARNERS)
def test_learner_learns(name: str) -> None:
    check_learns(LEARNERS[name], **TRAINING.get(name, {}))


def test_the_suite_can_fail() -> None:
    """A learner that looks at other queries without saying so is caught."""

    class Leaky(kshot.ProtoNet):
        def predict(self, state, x, mask=None):  # type: ignore[no-untyped-def]
            return super().predict(state, x - x.mean(1, keepdim=True), mask)

    with pytest.raises(AssertionError, match="declared inductive"):
        check_learner(lambda shape: Leaky(body()))
