"""The evaluations of a finished training, beside the baselines that every table carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from kshot.datasets import Mixture, Split
from kshot.datasets.sources import Source
from kshot.engine.processes import ALONE, Processes
from kshot.evaluation import Result, as_protocol, embedded, evaluate
from kshot.evaluation.scoring import examples_asked
from kshot.learners import MetaLearner, TaskShape
from kshot.learners.inner_loop import InnerLoop
from kshot.learners.nearest_neighbour import NearestNeighbour
from kshot.learners.protonet import ProtoNet
from kshot.nn.pretrained import is_pretrained
from kshot.training.build import make_encoder, make_learner, seed_weights
from kshot.training.config import EncoderConfig, EvaluationConfig, RunConfig

RAW_BASELINE = "1-NN, raw inputs"

Target = tuple[EvaluationConfig, Source]


def evaluate_all(
    config: RunConfig,
    shape: TaskShape,
    learner: MetaLearner,
    targets: Sequence[Target],
    meta_steps: int,
    progress: bool,
    processes: Processes = ALONE,
) -> list[Result]:
    """One result for each target and method; the baselines stand below the learner.

    Where a target states its protocol, the baselines, which have one only, are left out.
    """
    name = learner.title
    device = next(learner.parameters()).device
    raw = all(has_raw(source) for _, source in targets)
    baselines = [(label, method.to(device)) for label, method in _baselines(config, shape, raw)]
    asked = Counter[Hashable]()
    for e, source in targets:
        asked[_content(source)] += examples_asked(e.spec, e.episodes)
    # Each split is embedded once for each method, whatever the number of evaluations on it.
    seen: dict[Hashable, tuple[MetaLearner, Source]] = {}
    results = []
    jobs = [
        (e, source, label, method)
        for e, source in targets
        for label, method in [(name, learner), *(baselines if e.transductive is None else [])]
    ]
    console = Console()
    shown = progress and console.is_terminal
    with Progress(console=console, disable=not shown, transient=True) as bar:
        for e, source, label, method in bar.track(jobs, description="evaluating"):
            key = (label, _content(source), e.transductive)
            if key not in seen:
                seen[key] = stated(method, e), source
                if isinstance(source, (Split, Mixture)):
                    seen[key] = embedded(seen[key][0], source, asked[_content(source)])
            found = _evaluate(e, *seen[key], label, processes)
            steps = meta_steps if label == name else 0
            seeds = () if label == RAW_BASELINE else (config.seed,)
            results += [replace(r, meta_steps=steps, training_seeds=seeds) for r in found]
    return results


def has_raw(source: Source) -> bool:
    """Whether the examples can be compared as they are, which texts and the like cannot."""
    splits = source.sources if isinstance(source, (Split, Mixture)) else ()
    return not any(isinstance(split.x, dict) for split in splits)


def _content(source: Source) -> Hashable:
    """What the learner gets to see; the same stored images may be prepared in two ways."""
    if isinstance(source, (Split, Mixture)):
        return tuple((split.fingerprint, split.prepare) for split in source.sources)
    return source.fingerprint


def stated(learner: MetaLearner, target: EvaluationConfig) -> MetaLearner:
    """The learner by the protocol that the target asks for, if any."""
    return learner if target.transductive is None else as_protocol(learner, target.transductive)


def _evaluate(
    e: EvaluationConfig, learner: MetaLearner, source: Source, name: str, processes: Processes
) -> list[Result]:
    arguments = e.model_dump(exclude={"dataset", "split", "test_steps", "transductive"})
    arguments["processes"] = processes
    head = learner.head
    if not (isinstance(head, InnerLoop) and e.test_steps):
        return [evaluate(learner, source, **arguments, name=name)]
    results = []
    for count in e.test_steps:
        label = f"{name}, {count} step{'s' if count != 1 else ''}"
        with head.at_test(count):
            results.append(evaluate(learner, source, **arguments, name=label))
    return results


def _baselines(config: RunConfig, shape: TaskShape, raw: bool) -> list[tuple[str, MetaLearner]]:
    """What every table carries: the same without meta-training, and no learning at all."""
    if shape.way == 0:
        return [("untrained", make_learner(config, shape))]
    baselines: list[tuple[str, MetaLearner]] = []
    if raw:
        baselines.append((RAW_BASELINE, NearestNeighbour()))
    if config.encoder.name != "none":
        seed_weights(config.seed)
        baselines.append(
            (_start(config.encoder), ProtoNet(make_encoder(config.encoder, shape.x_shape)))
        )
    return baselines


def _start(encoder: EncoderConfig) -> str:
    """What the encoder is before any meta-training."""
    random = encoder.weights == "random" or (
        encoder.weights is None and not is_pretrained(encoder.name)
    )
    return "untrained encoder" if random else "pretrained encoder"
