"""A learned update rule against tuned SGD and Adam on the same network, on the same episodes.

python benchmarks/rivals.py RUN NAME --maml RUN          -> benchmarks/results/rivals-NAME.json
python benchmarks/rivals.py RUN NAME --supervised 30        (epochs of supervised pre-training)

RUN is a Meta-LSTM. The rivals fine-tune its own learned start, MAML's, or a network that was
trained to tell the meta-training classes apart. Their rates, and their steps beside the Meta-LSTM's
own number, are tuned on meta-validation; each is scored on test once.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.progress import track
from torch import nn

import kshot
from kshot.datasets.sources import Split
from kshot.engine import SGD, Adam
from kshot.evaluation import paired_difference
from kshot.evaluation.record import Result
from kshot.files import write_json
from kshot.learners.inner_loop import InnerLoop, NetworkLearner
from kshot.nn.norm import Normalization
from kshot.training.build import load_data
from kshot.training.job import AUGMENTATIONS
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


@dataclass(frozen=True)
class Start:
    """Where the weights of a rival begin, and what may be done with them.

    `fast` names sets of parameters that may move.
    """

    name: str
    net: nn.Sequential
    fast: Mapping[str, Collection[str]]
    normalizations: Sequence[Normalization] = ("support",)

    def tuned_by(self, setting: Setting) -> NetworkLearner:
        """Fine-tuning from here as a learner like any other."""
        head = InnerLoop(
            copy.deepcopy(self.net),
            RULES[setting.rule](setting.lr),
            steps=setting.steps,
            fast=self.fast[setting.fast].__contains__,
            normalization=setting.normalization,
        )
        return NetworkLearner(head).eval()


def tuned(
    start: Start, rule: str, steps: Sequence[int], score: Callable[[NetworkLearner], Result]
) -> Iterator[tuple[str, Setting, list[dict[str, Any]]]]:
    """The best setting with the first number of steps, then that with any of them."""
    grid = itertools.product(RATES[rule], start.fast, start.normalizations)
    settings = [Setting(rule, lr, steps[0], fast, norm) for lr, fast, norm in grid]
    tried: list[tuple[float, Setting]] = []

    def judge(settings: Sequence[Setting]) -> None:
        for s in track(settings, description=f"{start.name}, {rule}", transient=True):
            tried.append((score(start.tuned_by(s)).mean, s))

    def best() -> tuple[Setting, list[dict[str, Any]]]:
        ranking = [{**asdict(s), "validation": mean} for mean, s in tried]
        return max(tried, key=lambda t: t[0])[1], ranking

    judge(settings)
    yield "same steps", *best()
    # with more steps smaller rates may do: the three best are tried with each number
    leaders = [s for _, s in sorted(tried, key=lambda t: -t[0])[:3]]
    judge([Setting(**{**asdict(s), "steps": n}) for s in leaders for n in steps[1:]])
    yield "tuned steps", *best()


def supervised(run: Run, train: Split, epochs: int) -> nn.Sequential:
    """The run's network, trained to tell all meta-training classes apart; then a new last layer.

    Adam 1e-3 on a cosine, batches of 128, the run's augmentations. The new layer starts at zero.
    """
    torch.manual_seed(run.config.seed)
    ours: nn.Sequential = run.learner.head.net
    encoder = copy.deepcopy(ours[0]).train()
    for module in encoder.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    last = nn.Linear(ours[-1].in_features, len(train.classes))
    labels = torch.repeat_interleave(torch.arange(len(train.sizes)), torch.tensor(train.sizes))
    starts = torch.from_numpy(train.offsets).repeat_interleave(torch.tensor(train.sizes))
    counts = torch.cat([torch.arange(n) for n in train.sizes])
    rows = starts + counts
    parameters = [*encoder.parameters(), *last.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    batches = len(labels) // 128
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    augmentations = [AUGMENTATIONS[name] for name in run.config.train.augment]
    for _ in track(range(epochs), description="supervised"):
        for chosen in torch.randperm(len(labels))[: batches * 128].split(128):
            x = train.prepare(train.x[rows[chosen]])
            for change in augmentations:
                x = change(x, torch.rand(len(x), 4))
            loss = F.cross_entropy(last(encoder(x)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head = nn.Linear(ours[-1].in_features, ours[-1].out_features)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(encoder.eval(), head)


def main(
    run: Path,
    name: str,
    maml: Annotated[Path | None, typer.Option(help="A MAML run of the same network.")] = None,
    epochs: Annotated[int, typer.Option("--supervised", help="Of pre-training; 0: none.")] = 0,
    episodes: Annotated[int, typer.Option(help="On test.")] = 2000,
    judged_by: Annotated[int, typer.Option(help="Validation episodes.")] = 200,
) -> None:
    """Tune the rivals on meta-validation, score all on the same test episodes, keep the record."""
    ours = load_run(run)
    data = load_data(ours.config)
    first = ours.config.evaluation[0]
    task = {"way": first.way, "shot": first.shot, "query": first.query}
    own_steps = ours.learner.head.test_steps
    everything = {"all weights": [n for n, _ in ours.learner.head.net.named_parameters()]}
    starts = [Start("its own start", ours.learner.head.net, everything)]
    if maml is not None:
        other = load_run(maml).learner.head
        if str(other.net) != str(ours.learner.head.net):
            raise SystemExit(f"{maml} is not of the same network as {run}")
        fast = everything | {"what MAML adapts": other.fast_names}
        starts.append(Start("MAML's start", other.net, fast))
    if epochs:
        net = supervised(ours, data["train"], epochs)
        last = [n for n in everything["all weights"] if n.startswith("1.")]
        fast = everything | {"last layer": last}
        starts.append(Start("supervised pre-training", net, fast, ("support", "frozen")))

    def score(learner: nn.Module) -> Result:
        return kshot.evaluate(learner, data["val"], **task, episodes=judged_by)

    result = kshot.evaluate(ours.learner, data["test"], **task, episodes=episodes)
    rivals = []
    for start, rule in itertools.product(starts, RULES):
        counts = [own_steps, 2 * own_steps, 4 * own_steps, 8 * own_steps]
        for kind, setting, tried in tuned(start, rule, counts, score):
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
                    "tried": tried,
                    "result": rival.as_dict(),
                    "difference": difference.as_dict(),
                }
            )
    others = {"maml": maml and load_run(maml).config.model_dump(mode="json"), "epochs": epochs}
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
