"""From data to episodes, by number."""

from kshot.episodes.augment import augment, color_jitter, random_affine, random_crop, random_flip
from kshot.episodes.sampler import FrozenEpisodes, class_names, draw
from kshot.episodes.spec import EpisodeSpec

__all__ = [
    "EpisodeSpec",
    "FrozenEpisodes",
    "augment",
    "class_names",
    "color_jitter",
    "draw",
    "random_affine",
    "random_crop",
    "random_flip",
]
