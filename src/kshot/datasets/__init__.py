"""Class-grouped tensors with class-disjoint splits; families of tasks."""

from kshot.datasets.base import Dataset, Mixture, Split, TaskFamily
from kshot.datasets.catalogue import Entry, dataset_names, entry, load

__all__ = ["Dataset", "Entry", "Mixture", "Split", "TaskFamily", "dataset_names", "entry", "load"]
