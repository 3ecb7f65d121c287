"""From data to episodes, by number."""

from kshot.episodes.augment import augment, random_affine, random_flip
from kshot.episodes.sampler import FrozenEpisodes, draw
from kshot.episodes.spec import EpisodeSpec

__all__ = ["EpisodeSpec", "FrozenEpisodes", "augment", "draw", "random_affine", "random_flip"]
