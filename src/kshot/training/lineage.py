"""What a run has learned from: its own data, and that of the runs that its encoder started from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kshot.datasets.sources import Source
from kshot.errors import CheckpointError, DataError
from kshot.evaluation.protocol import seen_classes
from kshot.nn.pretrained import is_pretrained
from kshot.training.build import load_data, source_of
from kshot.training.config import RunConfig
from kshot.training.run import read_config


class Lineage(NamedTuple):
    """The trainings behind a learner.

    Attributes:
        sources: what was trained on, the last training first.
        unknown: where the encoder came from, as far as that training's classes cannot be told:
            networks of other packages, files, folders that are gone.
    """

    sources: list[Source]
    unknown: list[str]

    def warnings(self, tested: Source) -> list[str]:
        """What a score on these classes has to be read with, a sentence each."""
        found = []
        if seen := seen_classes(self.sources, tested):
            found.append(
                f"{len(seen):,} classes of {tested.name}, such as {seen[0]}, have the names of "
                "classes in its training: if they are the same, the score says too much"
            )
        return [*found, *self.doubts(tested.name)]

    def doubts(self, tested: str) -> list[str]:
        """A sentence for each unknown training."""
        return [
            f"the encoder starts from {start}, whose training classes kshot does not know: if "
            f"some of {tested} are among them, the score says too much"
            for start in self.unknown
        ]


def lineage(config: RunConfig) -> Lineage:
    """The trainings behind a run of this configuration.

    Raises:
        DataError: if the run's own data cannot be had.
    """
    start, name = config.encoder.weights, config.encoder.name
    sources, unknown = [source_of(load_data(config), config.train.split)], []
    if start is None or start == "random":
        if start is None and is_pretrained(name):
            unknown.append(name)
    elif not Path(start).is_dir():
        unknown.append(start)
    else:
        try:
            before = lineage(read_config(Path(start)))
            sources += before.sources
            unknown += before.unknown
        except (CheckpointError, DataError):
            unknown.append(start)
    return Lineage(sources, unknown)
