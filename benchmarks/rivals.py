"""A learned update rule against tuned SGD and Adam on the same network, on the same episodes.

python benchmarks/rivals.py RUN NAME --maml RUN          -> benchmarks/results/rivals-NAME.json
python benchmarks/rivals.py RUN NAME --supervised RUN       (a run of `kshot pretrain`)

RUN is a Meta-LSTM. The rivals fine-tune its own learned start, MAML's, or a network that was
pretrained to tell the meta-training classes apart. Their rates, and their steps beside the
Meta-LSTM's own number, are tuned on meta-validation; each is scored on test once.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from torch import nn

import kshot
from kshot.engine import SGD, Adam
from kshot.evaluation import paired_difference
from kshot.evaluation.record import Result
from kshot.files import write_json
from kshot.learners.inner_loop import InnerLoop, NetworkLearner
from kshot.nn.norm import Normalization
from kshot.training.build import load_data
from kshot.training.run import Run, load_run

RESULTS = Path(__file__).parent / "results"
RULES = {"SGD": SGD, "Adam": Adam}
RATES = {
    "SGD": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03),
}


@dataclass(frozen=True)
class Setting:
    """How a start is fine-tuned."""

    rule: str
    lr: float
    steps: int
    fast: str
    normalization: Normalization
    augment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """Where the weights of a rival begin, and what may be done with them.

    `fast` names sets of parameters that may move; `augments` are ways to change the support's
    images in each step, of which the first is none.
    """

    name: str
    net: nn.Sequential
    fast: Mapping[str, Collection[str]]
    normalizations: Sequence[Normalization] = ("support",)
    augments: Sequence[tuple[str, ...]] = ((),)

    def tuned_by(self, setting: Setting) -> NetworkLearner:
        """Fine-tuning from here as a learner like any other."""
        head = InnerLoop(
            copy.deepcopy(self.net),
            RULES[setting.rule](setting.lr),
            steps=setting.steps,
            fast=self.fast[setting.fast].__contains__,
            normalization=setting.normalization,
            augment=setting.augment,
        )
        return NetworkLearner(head).eval()


class Tuning:
    """What was tried for one start and rule, judged on meta-validation."""

    def __init__(self, start: Start, rule: str, score: Callable[[NetworkLearner], Result]) -> None:
        self.start, self.rule, self.score = start, rule, score
        self.tried: dict[Setting, float] = {}

    def judge(self, settings: Iterable[Setting]) -> None:
        """Score what has not been scored; what diverges is worse than all else."""
        new = [s for s in settings if s not in self.tried]
        for s in track(new, description=f"{self.start.name}, {self.rule}", transient=True):
            mean = self.score(self.start.tuned_by(s)).mean
            self.tried[s] = mean if math.isfinite(mean) else -math.inf

    @property
    def best(self) -> Setting:
        """Of all so far."""
        return max(self.tried, key=lambda s: self.tried[s])

    def widen(self) -> None:
        """Try further rates until the best one is not at the end of those tried."""
        while True:
            s = self.best
            known = [t.lr for t in self.tried if replace(t, lr=s.lr) == s]
            self.judge([replace(s, lr=lr) for lr in (s.lr / 3, s.lr * 3) if not between(lr, known)])
            if self.best == s:
                return

    def rates(self, steps: int) -> None:
        """Every rate, part, normalisation and augmentation with so many steps."""
        start = self.start
        ways = itertools.product(RATES[self.rule], start.fast, start.normalizations, start.augments)
        self.judge([Setting(self.rule, lr, steps, *way) for lr, *way in ways])
        self.widen()

    def more_steps(self, counts: Sequence[int]) -> None:
        """The best setting with more steps, at its own and at smaller rates, which may then do."""
        s = self.best
        for n, factor in itertools.product(counts, (1, 3, 10)):
            self.judge([replace(s, steps=n, lr=s.lr / factor)])
        self.widen()

    def ranking(self) -> list[dict[str, Any]]:
        """All that was tried, for the record."""
        return [
            {**asdict(s), "validation": mean if math.isfinite(mean) else None}
            for s, mean in self.tried.items()
        ]


def between(x: float, known: Sequence[float]) -> bool:
    """Whether it lies within the known values."""
    return min(known) <= x <= max(known)


def supervised(run: Run, ours: nn.Sequential) -> nn.Sequential:
    """The pretrained encoder and a new last layer, which starts at zero."""
    head = nn.Linear(ours[-1].in_features, ours[-1].out_features)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(run.learner.body, head)


def shapes(net: nn.Module) -> dict[str, Any]:
    """Of all parameters by name: what makes two networks the same here."""
    return {name: parameter.shape for name, parameter in net.named_parameters()}


def _checked(path: Path, ours: Run) -> Run:
    """A run on the same data."""
    other = load_run(path)
    if other.config.datasets != ours.config.datasets:
        raise SystemExit(f"{path} was not trained on the data of {ours.folder}")
    return other


def main(
    run: Path,
    name: str,
    maml: Annotated[Path | None, typer.Option(help="A MAML run of the same network.")] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option("--supervised", help="A `kshot pretrain` run of the same network."),
    ] = None,
    episodes: Annotated[int, typer.Option(help="On test.")] = 2000,
    judged_by: Annotated[int, typer.Option(help="Validation episodes.")] = 200,
) -> None:
    """Tune the rivals on meta-validation, score all on the same test episodes, keep the record."""
    ours = load_run(run)
    data = load_data(ours.config)
    first = ours.config.evaluation[0]
    task = {"way": first.way, "shot": first.shot, "query": first.query}
    own_steps = ours.learner.head.test_steps
    others: dict[str, Any] = {}
    everything = {"all weights": [n for n, _ in ours.learner.head.net.named_parameters()]}
    starts = [Start("its own start", ours.learner.head.net, everything)]
    if maml is not None:
        other = _checked(maml, ours)
        net = other.learner.head.net
        fast = everything | {"what MAML adapts": other.learner.head.fast_names}
        starts.append(Start("MAML's start", net, fast))
        others["maml"] = other.config.model_dump(mode="json")
    if pretrained is not None:
        other = _checked(pretrained, ours)
        net = supervised(other, ours.learner.head.net)
        last = [n for n in everything["all weights"] if n.startswith("1.")]
        fast = everything | {"last layer": last}
        augments = ((), tuple(ours.config.train.augment))
        starts.append(Start("supervised pre-training", net, fast, ("support", "frozen"), augments))
        others["supervised"] = other.config.model_dump(mode="json")
    for start in starts[1:]:
        if shapes(start.net) != shapes(ours.learner.head.net):
            raise SystemExit(f"the network of {start.name} is not that of {run}")

    def score(learner: nn.Module) -> Result:
        return kshot.evaluate(learner, data["val"], **task, episodes=judged_by)

    result = kshot.evaluate(ours.learner, data["test"], **task, episodes=episodes)
    if result.metric != "accuracy":
        raise SystemExit("rivals are compared by accuracy")
    rivals = []
    for start, rule in itertools.product(starts, RULES):
        tuning = Tuning(start, rule, score)
        for kind, tune in (
            ("same steps", partial(tuning.rates, own_steps)),
            ("tuned steps", partial(tuning.more_steps, [n * own_steps for n in (2, 4, 8)])),
        ):
            tune()
            setting = tuning.best
            label = f"{rule} from {start.name}, {kind}"
            rival = kshot.evaluate(
                start.tuned_by(setting), data["test"], **task, episodes=episodes, name=label
            )
            difference = paired_difference(result, rival)
            print(f"{label}: {rival}; {difference}")
            rivals.append(
                {
                    "start": start.name,
                    "kind": kind,
                    "setting": asdict(setting),
                    "tried": tuning.ranking(),
                    "result": rival.as_dict(),
                    "difference": difference.as_dict(),
                }
            )
    write_json(
        RESULTS / f"rivals-{name}.json",
        {
            "name": name,
            "config": ours.config.model_dump(mode="json"),
            "judged_by": judged_by,
            "steps": own_steps,
            **others,
            "learner": result.as_dict(),
            "rivals": rivals,
        },
    )


if __name__ == "__main__":
    typer.run(main)
