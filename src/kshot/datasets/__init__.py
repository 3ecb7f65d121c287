"""Class-grouped tensors with class-disjoint splits; families of tasks."""

from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry, dataset_names, entry, load
from kshot.datasets.sources import Mixture, Split, TaskFamily

__all__ = ["Dataset", "Entry", "Mixture", "Split", "TaskFamily", "dataset_names", "entry", "load"]
