"""The settings of a run, validated at the edge: an unknown key is an error, never ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kshot.episodes import EpisodeSpec
from kshot.errors import ConfigError, unknown

EMBEDDED = {"glyphs", "digits", "sinusoid", "wordnet"}
"""Data sets that need no download, or come by pip."""

# TOML has lists and no tuples: a range of ways or shots is written [1, 5].
M = TypeVar("M", bound=BaseModel)

Count = Annotated[
    int | tuple[int, int], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]


class Part(BaseModel):
    """Something chosen by name; the other keys are its own options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """What the recipe sets beside the name."""
        return dict(self.model_extra or {})


def _chosen(value: Any) -> Any:
    """A name alone as a table; a path as one that holds from any working folder."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and isinstance(path := value.get("path"), (str, int)) and path:
        return {**value, "path": str(Path(str(path)).expanduser().absolute())}
    return value


Chosen = Annotated[Part, BeforeValidator(_chosen)]


class EncoderConfig(Part):
    """The encoder, where its weights start, and which of them the outer loop moves.

    Attributes:
        weights: a run folder or a file to start from; `random` in place of pretrained ones.
        complete: layers without a bias or a factor get a neutral one, as those of a network have
            whose adapters were merged.
        slow: `all`, `none`, or an adapter (see `kshot.nn.adapters`) with its options.
    """

    weights: str | None = None
    complete: bool = False
    slow: Chosen = Part(name="all")


def _chosen_encoder(value: Any) -> Any:
    """As `_chosen`; weights at a path hold from any working folder."""
    chosen = _chosen(value)
    if isinstance(chosen, dict) and isinstance(w := chosen.get("weights"), str) and w != "random":
        return {**chosen, "weights": str(Path(w).expanduser().absolute())}
    return chosen


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EpisodesConfig(_Strict):
    """The arguments of `EpisodeSpec`."""

    way: Count = 5
    shot: Count | Literal["any"] = 1
    query: int = Field(15, ge=1)
    imbalanced: bool = False

    @property
    def spec(self) -> EpisodeSpec:
        """The shape of the episodes."""
        return EpisodeSpec(self.way, self.shot, self.query, self.imbalanced)


class TrainConfig(EpisodesConfig):
    """The arguments of `meta_train`.

    With `steps = 0` nothing is trained: for learners that take an encoder as it is. With
    `split = "train+val"` there is nothing left to validate on, and the last weights are kept:
    for a final run whose settings another run has chosen.
    """

    split: Literal["train", "train+val"] = "train"
    query: int = Field(15, ge=0)
    steps: int = Field(1000, ge=0)
    meta_batch: int = Field(1, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    schedule: str = "constant"
    clip: float | None = Field(None, gt=0, allow_inf_nan=False)
    hard_tasks: bool = False
    augment: list[Literal["affine", "crop", "flip", "jitter"]] = []


class ValidationConfig(EpisodesConfig):
    """The frozen episodes that choose the best weights."""

    episodes: int = Field(200, ge=2)
    every: int = Field(100, ge=1)
    patience: int | None = Field(None, ge=1)


class EvaluationConfig(EpisodesConfig):
    """One row group of the result table."""

    dataset: Chosen | None = None
    split: str = "test"
    episodes: int = Field(1000, ge=2)
    seed: int = Field(0, ge=0, lt=2**63)
    test_steps: list[Annotated[int, Field(ge=0)]] = []
    transductive: bool | None = None


class Blueprint(_Strict):
    """What a learner is built from."""

    seed: int = Field(0, ge=0, lt=2**63)
    encoder: Annotated[EncoderConfig, BeforeValidator(_chosen_encoder)] = EncoderConfig(name="none")
    learner: Chosen


class RunConfig(Blueprint):
    """All settings of `kshot train`."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: Chosen | list[Chosen]
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: list[EvaluationConfig] = []

    @property
    def datasets(self) -> list[Part]:
        """What is trained on: one data set, or several at once."""
        return self.dataset if isinstance(self.dataset, list) else [self.dataset]


SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "validation": ValidationConfig,
    "evaluation": EvaluationConfig,
}

EXPECTED = {
    "name": "give letters, digits, '.', '_' and '-', a letter or digit first",
    "dataset": "give a name, such as 'glyphs', or a table with a name and options",
    "encoder": "give a name, such as 'conv4', or a table with a name and options",
    "learner": "give a name, such as 'protonet', or a table with a name and options",
    "evaluation": "give a list of tables, each begun by [[evaluation]]",
    "train": "give a table, such as [train] with steps = 100",
    "validation": "give a table, such as [validation] with episodes = 100",
    "train.augment": "give a list of 'affine', 'crop', 'flip' and 'jitter'",
    "way": "give a whole number, or a range such as [2, 5]",
    "shot": "give a whole number, a range such as [1, 5], or 'any'",
}
"""What a setting takes, by its name or the last part of it."""


def recipe_names() -> list[str]:
    """The recipes that come with kshot."""
    folder = files("kshot") / "recipes"
    names = [path.name for path in folder.iterdir()]
    return sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml"))


def read_recipe(recipe: str, settings: Sequence[str] = (), *, quick: bool = False) -> RunConfig:
    """The configuration of a recipe, changed by `key=value` settings.

    Args:
        recipe: a path to a TOML file, or the name of one that comes with kshot.
        settings: such as `train.steps=200`; values are read as TOML, bare words as text.
        quick: shorten the recipe to a trial on embedded data, before the settings.

    Raises:
        ConfigError: for a missing or malformed recipe, an unknown key, or an impossible value.
    """
    if recipe in recipe_names():
        text = (files("kshot") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    elif Path(recipe).is_file():
        try:
            text = Path(recipe).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{recipe} cannot be read as text: {error}.") from error
    elif recipe.endswith(".toml"):
        raise ConfigError(f"there is no recipe file {recipe}: check the path.")
    else:
        raise unknown("recipe", recipe, recipe_names())
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{recipe} is not valid TOML: {error}.") from error
    if quick:
        raw = _shortened(validate(raw))
    for setting in settings:
        _apply(raw, setting)
    return validate(raw)


def with_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The configuration, changed by `key=value` settings as in `read_recipe`.

    Raises:
        ConfigError: as `read_recipe`.
    """
    raw = config.model_dump(mode="json")
    for setting in settings:
        _apply(raw, setting)
    return validate(raw)


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """`key=value` settings as a table, their values read as in `read_recipe`.

    Raises:
        ConfigError: for what is not of that form.
    """
    raw: dict[str, Any] = {}
    for setting in settings:
        _apply(raw, setting)
    return raw


def validate(raw: dict[str, Any]) -> RunConfig:
    """A configuration from plain values.

    Raises:
        ConfigError: that names the first thing that is wrong.
    """
    return _validated(RunConfig, raw)


def validate_blueprint(raw: dict[str, Any]) -> Blueprint:
    """As `validate`, of encoder, learner and seed alone."""
    return _validated(Blueprint, raw)


def _validated(model: type[M], raw: dict[str, Any]) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        extra = first["type"] == "extra_forbidden"
        *sections, key = first["loc"]
        where = [*_known(sections), *([str(key)] if extra else _known([key]))]
        if extra:
            raise unknown(
                f"setting of {'.'.join(where[:-1]) or 'a recipe'}", where[-1], _keys_at(where[:-1])
            ) from error
        name = ".".join(where)
        expected = EXPECTED.get(name) or EXPECTED.get(where[-1] if len(where) > 1 else "")
        if first["type"] == "missing":
            raise ConfigError(f"setting {name} is missing: {expected or 'give it'}.") from error
        raise ConfigError(
            f"setting {name}: {expected or first['msg'].lower()} (got {first['input']!r})."
        ) from error


def _shortened(config: RunConfig) -> dict[str, Any]:
    """The recipe as plain values, a few minutes long: few steps and episodes, on glyphs.

    What is embedded already, such as the sinusoids, stays.
    """
    raw = config.model_dump(mode="json")
    if {part.name for part in config.datasets} - EMBEDDED:
        raw["dataset"] = {"name": "glyphs"}
        raw["train"]["meta_batch"] = min(config.train.meta_batch, 2)
    raw["name"] += "-quick"
    raw["train"] |= {"steps": min(config.train.steps, 100), "split": "train", "augment": []}
    raw["validation"] |= {"episodes": 50, "every": 50, "patience": None}
    for evaluation in raw["evaluation"]:
        evaluation |= {"episodes": 100, "dataset": None, "split": "test"}
    return raw


def _known(loc: Sequence[int | str]) -> list[str]:
    """A place in a recipe, without pydantic's own words for the kinds that it tried."""
    own = {name for section in SECTIONS.values() for name in section.model_fields}
    return [str(p) for p in loc if isinstance(p, int) or p in own or p in RunConfig.model_fields]


def _keys_at(where: list[str]) -> list[str]:
    return list(SECTIONS.get(where[0] if where else "", RunConfig).model_fields)


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, such as train.steps=200; got {setting!r}.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if key in ("dataset", "encoder", "learner") and isinstance(value, str):
        value = {"name": value}
    *parents, last = key.split(".")
    if last == "path" and not isinstance(value, str):
        value = text  # a folder may be called 2024.10
    places = [raw]
    for depth, parent in enumerate(parents):
        if depth == 0 and parent in ("dataset", "encoder", "learner"):
            raw[parent] = _chosen(raw.get(parent, {}))
        found = [place.setdefault(parent, {}) for place in places]
        # Of a list, such as that of the evaluations, all.
        places = [p for part in found for p in (part if isinstance(part, list) else [part])]
        if not places or not all(isinstance(place, dict) for place in places):
            raise ConfigError(f"--set {setting}: {parent!r} is not a section with keys.")
    for place in places:
        place[last] = value
