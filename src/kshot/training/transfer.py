"""What was learned in a source domain, on a target: beside rivals that are tuned there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from kshot.datasets import Mixture, Split
from kshot.datasets.sources import Source, feature_shape
from kshot.episodes import EpisodeSpec, FrozenEpisodes
from kshot.errors import ConfigError
from kshot.evaluation import Difference, Result, evaluate, paired_difference
from kshot.evaluation.protocol import seen_classes
from kshot.evaluation.transfer import Tried, as_images, related, tune
from kshot.learners import MetaLearner, TaskShape
from kshot.learners.fine_tuning import FineTuning
from kshot.learners.pmf import PMF
from kshot.learners.protonet import ProtoNet
from kshot.nn import merge_adapters
from kshot.nn.pretrained import is_pretrained
from kshot.training.build import load_data, make_encoder, seed_weights
from kshot.training.config import EncoderConfig, Part
from kshot.training.run import Run, load_run

RATES, STEPS = (0.003, 0.01, 0.03, 0.1), (10, 40)
"""Of fine-tuning, tried for the last layer and for all weights."""

PMF_RATES, PMF_STEPS = (1e-4, 1e-3), (0, 20)
"""Of PMF's fine-tuning; 0 steps are none."""

FROZEN, TUNED, SCRATCH = "frozen encoder", "tuned fine-tuning", "from scratch"
RIVALS = (FROZEN, TUNED, SCRATCH)


@dataclass(frozen=True)
class Target:
    """A target domain.

    Attributes:
        name: of the data set.
        test: the classes to be tested.
        val: others, to tune on; those of the source if None.
    """

    name: str
    test: Split
    val: Split | None = None

    def without(self, trained: Sequence[Source], shared: str) -> Target:
        """The target without the classes of some trainings, as far as `shared` says.

        Raises:
            ConfigError: if they share classes and `shared` is `refuse`.
        """
        seen = seen_classes(trained, self.test)
        if not seen or shared == "keep":
            return self
        if shared == "refuse":
            more = f" and {len(seen) - 5} more" if len(seen) > 5 else ""
            raise ConfigError(
                f"{' and '.join(s.name for s in trained)} and {self.test.name} share classes: "
                f"{', '.join(seen[:5])}{more}. Leave them out by --shared drop, or say by "
                "--shared keep that they differ."
            )
        names = set(seen)
        keep = [i for i, label in enumerate(self.test.classes) if str(label) not in names]
        return replace(self, test=self.test.take(keep))


@dataclass(frozen=True)
class Cell:
    """One run on one target, beside its rivals on the same episodes.

    Attributes:
        run: its name.
        target: the target's name.
        result: the run's.
        rivals: by name: its encoder frozen with class means; its encoder fine-tuned (the last
            layer or all weights, whichever tunes better); a network of random weights, likewise.
        gains: over each rival, paired.
        tuned: what was tried for each that has rates and steps, the best first.
        shared: the target's groups (scripts) that the source has too.
        apart: the run's score on the target without those groups, if there are any.
    """

    run: str
    target: str
    result: Result
    rivals: Mapping[str, Result]
    gains: Mapping[str, Difference]
    tuned: Mapping[str, Sequence[Tried]] = field(default_factory=dict)
    shared: Sequence[str] = ()
    apart: Result | None = None


@dataclass(frozen=True)
class Judge:
    """Scores learners on the same episodes of a target, tunes them on those of its validation.

    Attributes:
        spec: of the episodes.
        episodes: on test.
        tuning: on validation.
        seed: of the episodes.
        device: where to compute.
    """

    spec: EpisodeSpec
    episodes: int = 600
    tuning: int = 30
    seed: int = 0
    device: torch.device | str = "cpu"

    def transfer(self, run: Run, target: Target) -> Cell:
        """The run on the target, beside its rivals.

        Raises:
            ConfigError: if there are no classes to tune on.
            DataError: if the target's examples are of another kind than the source's.
            EpisodeError: if the target cannot give such episodes.
        """
        data = load_data(run.config)
        source = data[run.config.train.split]
        if not isinstance(source, (Split, Mixture)):
            raise ConfigError(f"{source.name} has no classes to transfer from.")
        shape = TaskShape(_x_shape(source), self.spec.needed_way, 0)
        test = as_images(target.test, shape.x_shape)
        own = data.splits.get("val")
        val = own if target.val is None else as_images(target.val, shape.x_shape)
        if val is None:
            raise ConfigError(
                f"neither {target.name} nor {data.name} has a split 'val' to tune the rivals on."
            )
        judged = FrozenEpisodes(val, self.spec, self.tuning, self.seed)
        name = run.folder.absolute().name
        tuned: dict[str, list[Tried]] = {}
        learner = run.learner
        if isinstance(learner, PMF):
            tuned[name] = tune(_pmf(learner), judged, PMF_RATES, PMF_STEPS)
            learner = _pmf(learner)(tuned[name][0].lr, tuned[name][0].steps)
        result = self._score(learner, test, name)
        rivals = {FROZEN: self._score(_frozen(_start(run, shape)), test, FROZEN)}
        for label, start in ((TUNED, _start), (SCRATCH, _random)):
            best, tuned[label] = _fine_tuned(run, shape, start, judged)
            rivals[label] = self._score(best, test, label)
        groups, rest = _groups(source, test)
        return Cell(
            name,
            target.name,
            result,
            rivals,
            {label: paired_difference(result, rival) for label, rival in rivals.items()},
            tuned,
            groups,
            self._score(learner, test.take(rest), name)
            if groups and len(rest) >= self.spec.needed_way
            else None,
        )

    def _score(self, learner: MetaLearner, test: Split, name: str) -> Result:
        return evaluate(
            learner.to(self.device),
            test,
            **vars(self.spec),
            episodes=self.episodes,
            seed=self.seed,
            name=name,
        )


def _x_shape(source: Split | Mixture) -> tuple[int, ...]:
    return feature_shape(source.sources[0].examples(slice(0, 1)))


def _start(run: Run, shape: TaskShape) -> nn.Module:
    """The encoder that the run started from; its own, where it started from random weights."""
    config = _plain(run.config.encoder)
    if config.weights != "random" and (config.weights or is_pretrained(config.name)):
        return make_encoder(config, shape.x_shape)
    body = load_run(run.folder).learner.body
    merge_adapters(body)
    return body.requires_grad_(True)


def _random(run: Run, shape: TaskShape) -> nn.Module:
    """The run's encoder with fresh weights."""
    seed_weights(run.config.seed)
    return make_encoder(_plain(run.config.encoder), shape.x_shape, restored=True)


def _plain(config: EncoderConfig) -> EncoderConfig:
    """The encoder without an adapter, nothing of it frozen."""
    return config.model_copy(update={"slow": Part(name="all")})


def _frozen(encoder: nn.Module) -> MetaLearner:
    return ProtoNet(encoder, distance="cosine", normalization="frozen").eval()


def _fine_tuned(
    run: Run,
    shape: TaskShape,
    start: Callable[[Run, TaskShape], nn.Module],
    judged: FrozenEpisodes,
) -> tuple[MetaLearner, list[Tried]]:
    """The better of the last layer's and of all weights' fine-tuning, each at its best.

    It sees the support's images changed as the run did in meta-training. Random weights have no
    statistics of a pre-training: they are normalised by the support.
    """
    options: dict[str, Any] = {
        "augment": run.config.train.augment,
        "normalization": "support" if start is _random else "frozen",
    }

    def maker(part: str) -> Callable[[float, int], MetaLearner]:
        return lambda lr, steps: FineTuning.for_tasks(
            start(run, shape), shape, fast=part, inner_lr=lr, inner_steps=steps, **options
        ).eval()

    found = [(tune(maker(part), judged, RATES, STEPS), part) for part in ("last", "all")]
    tried, part = max(found, key=lambda pair: pair[0][0].score)
    return maker(part)(tried[0].lr, tried[0].steps), tried


def _pmf(learner: PMF) -> Callable[[float, int], MetaLearner]:
    def make(lr: float, steps: int) -> MetaLearner:
        learner.head.rule.lr, learner.head.test_steps = lr, steps
        return learner

    return make


def _groups(source: Split | Mixture, test: Split) -> tuple[list[str], list[int]]:
    """The groups that both have, and the classes of the target that are of none of them."""
    common = {c for part in source.sources for c in related(part, test)}
    names: Any = sorted({str(test.classes[c]).partition("/")[0] for c in common})
    return names, [c for c in range(len(test.classes)) if c not in common]
