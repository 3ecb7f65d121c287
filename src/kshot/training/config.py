"""The settings of a run, validated at the edge: an unknown key is an error, never ignored."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kshot.episodes import EpisodeSpec
from kshot.errors import ConfigError, unknown

# TOML has lists and no tuples: a range of ways or shots is written [1, 5].
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


# A data set without options may be given by its name alone.
Chosen = Annotated[Part, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Episodes(_Strict):
    """The arguments of `EpisodeSpec`."""

    way: Count = 5
    shot: Count | Literal["any"] = 1
    query: int = Field(15, ge=1)
    imbalanced: bool = False

    @property
    def spec(self) -> EpisodeSpec:
        """The shape of the episodes."""
        return EpisodeSpec(self.way, self.shot, self.query, self.imbalanced)


class TrainConfig(_Episodes):
    """The arguments of `meta_train`.

    With `split = "train+val"` there is nothing left to validate on, and the last weights are kept:
    for a final run whose settings another run has chosen.
    """

    split: Literal["train", "train+val"] = "train"
    query: int = Field(15, ge=0)
    steps: int = Field(1000, ge=1)
    meta_batch: int = Field(1, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: str = "constant"
    clip: float | None = Field(None, gt=0, allow_inf_nan=False)
    augment: list[Literal["affine", "crop", "flip", "jitter"]] = []


class ValidationConfig(_Episodes):
    """The frozen episodes that choose the best weights."""

    episodes: int = Field(200, ge=2)
    every: int = Field(100, ge=1)
    patience: int | None = Field(None, ge=1)


class EvaluationConfig(_Episodes):
    """One row group of the result table."""

    dataset: Chosen | None = None
    split: str = "test"
    episodes: int = Field(1000, ge=2)
    seed: int = Field(0, ge=0, lt=2**63)
    test_steps: list[Annotated[int, Field(ge=0)]] = []
    transductive: bool | None = None


class RunConfig(_Strict):
    """All settings of `kshot train`."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**63)
    dataset: Chosen | list[Chosen]
    encoder: Part = Part(name="none")
    learner: Part
    train: TrainConfig = TrainConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: list[EvaluationConfig] = []

    @property
    def datasets(self) -> list[Part]:
        """What is trained on: one data set, or several at once."""
        return self.dataset if isinstance(self.dataset, list) else [self.dataset]


def recipe_names() -> list[str]:
    """The recipes that come with kshot."""
    folder = files("kshot") / "recipes"
    names = [path.name for path in folder.iterdir()]
    return sorted(n.removesuffix(".toml") for n in names if n.endswith(".toml"))


def read_recipe(recipe: str, settings: Sequence[str] = ()) -> RunConfig:
    """The configuration of a recipe, changed by `key=value` settings.

    Args:
        recipe: a path to a TOML file, or the name of one that comes with kshot.
        settings: such as `train.steps=200`; values are read as TOML, bare words as text.

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
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise unknown(
                f"setting of {'.'.join(where[:-1]) or 'a recipe'}", where[-1], _keys_at(where[:-1])
            ) from error
        got = f" (got {first['input']!r})" if first["type"] != "missing" else ""
        raise ConfigError(f"setting {'.'.join(where)}: {first['msg'].lower()}{got}.") from error


def _keys_at(where: list[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "train": TrainConfig,
        "validation": ValidationConfig,
        "evaluation": EvaluationConfig,
    }
    return list(sections.get(where[0] if where else "", RunConfig).model_fields)


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
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {setting}: {parent!r} is not a section with keys.")
    place[last] = value
