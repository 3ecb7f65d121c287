"""A fitted model in one file: a zip of safetensors and a JSON manifest, nothing that runs.

manifest.json          versions, classes, what the inputs are, where it comes from, checksums
learner.safetensors    weights of the encoder and the head
support.safetensors    what it was fitted on, embedded
tokenizer.json         for texts
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

import kshot
from kshot.datasets.texts import tokenizer_text
from kshot.errors import CheckpointError, ConfigError
from kshot.estimators.forms import TextForm, form_facts, form_of
from kshot.estimators.ready import Ready
from kshot.evaluation.calibration import Calibration
from kshot.files import atomic
from kshot.training.build import make_learner
from kshot.training.config import validate_blueprint
from kshot.training.run import check_fit, shape_of

FORMAT = 2
"""Of the file; a greater number means a newer kshot. From 2 on the manifest has a checksum too."""

ENDING = ".kshot"
MANIFEST, LEARNER, SUPPORT, TOKENIZER = (
    "manifest.json",
    "learner.safetensors",
    "support.safetensors",
    "tokenizer.json",
)
MAX_BYTES = 4 * 2**30
"""Of a model file."""

MAX_MANIFEST = 64 * 2**20
"""In bytes: a hundred thousand examples with long names."""


CHARACTERS = "characters"
"""The learner that kshot ships; the recipe of that name made it."""


def shipped_learner(name: str) -> Path:
    """The file of a learner that comes with kshot."""
    return Path(str(files("kshot"))) / "shipped" / f"{name}{ENDING}"


def write_model(
    path: Path, ready: Ready, facts: Mapping[str, Any], support: Mapping[str, Tensor]
) -> None:
    """Write a model, whole or not at all.

    Args:
        path: of the file.
        ready: the learner.
        facts: that are to stand in the manifest.
        support: tensors that the learner was fitted on; none for a learner alone.

    Raises:
        ConfigError: for a learner that cannot be built again from names.
        CheckpointError: if the file cannot be written.
    """
    if ready.blueprint is None:
        raise ConfigError(
            "this model has a module of your own in it, which a file cannot build again: choose "
            "learner and encoder by name, or train them by kshot train and give the run folder."
        )
    form, members = ready.form, {}
    if isinstance(form, TextForm):
        members[TOKENIZER] = tokenizer_text(form.tokenizer).encode()
        form = replace(form, tokenizer=TOKENIZER)
    members[LEARNER] = save(_plain(ready.learner.state_dict()))
    if support:
        members[SUPPORT] = save(_plain(support))
    manifest = {
        "format": FORMAT,
        "kshot": kshot.__version__,
        "torch": torch.__version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "blueprint": ready.blueprint.model_dump(mode="json"),
        "task_shape": ready.shape._asdict(),
        "inputs": form_facts(form),
        "origin": dict(ready.origin),
        **facts,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    # A file's name need not be Unicode.
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > MAX_MANIFEST:
        raise ConfigError(
            f"names and classes of these examples take {len(data):,} bytes, a model file has room "
            f"for {MAX_MANIFEST:,}: fit on fewer."
        )
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        file.writestr(MANIFEST, data)
        file.comment = hashlib.sha256(data).hexdigest().encode()
        for name, data in members.items():
            file.writestr(name, data)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}


def read_model(path: Path) -> tuple[Ready, dict[str, Any], dict[str, Tensor]]:
    """The learner, the manifest, and what it was fitted on; no code of the file is run.

    Raises:
        CheckpointError: if it is none, is damaged, or was written by a newer kshot.
    """
    manifest, members = _read(path)
    try:
        blueprint = validate_blueprint(manifest["blueprint"])
        shape = shape_of(manifest["task_shape"])
        form = form_of(manifest["inputs"])
        if isinstance(form, TextForm):
            tokenizer = members[TOKENIZER].decode()
            if not isinstance(json.loads(tokenizer), dict):  # the name of a file is read as one
                raise ValueError("its tokenizer is none")
            form = replace(form, tokenizer=tokenizer)
        weights = load(members[LEARNER])
        support = load(members[SUPPORT]) if SUPPORT in members else {}
        origin = {str(k): str(v) for k, v in manifest["origin"].items()}
        calibration = manifest.get("calibration")
        calibration = None if calibration is None else Calibration.of_dict(calibration)
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error
    if not all(t.isfinite().all() for t in [*weights.values(), *support.values()]):
        raise damaged(path, "it holds numbers that are none")
    # Quiet about BatchNorm layers that kshot replaces: whoever fitted the model was told.
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        learner = make_learner(blueprint, shape, restored=True).eval()
    check_fit(path, weights, learner.state_dict())
    learner.load_state_dict(weights)
    return Ready(learner, form, blueprint, shape, origin, calibration), manifest, support


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest and members, whose sizes and checksums are as the manifest says."""
    try:
        with zipfile.ZipFile(path) as file:
            _check_members(path, file)
            data = file.read(MANIFEST)
            manifest = json.loads(data)
            if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
                raise damaged(path, "its manifest has no format")
            if manifest["format"] > FORMAT:
                raise CheckpointError(
                    f"{path} was written by kshot {manifest.get('kshot')} in format "
                    f"{manifest['format']}, but this is kshot {kshot.__version__}, which reads "
                    f"formats up to {FORMAT}: upgrade kshot."
                )
            whole = file.comment == hashlib.sha256(data).hexdigest().encode()
            if manifest["format"] > 1 and not whole:
                raise damaged(path, "its manifest has another checksum than the file says")
            members = {name: file.read(name) for name in file.namelist() if name != MANIFEST}
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no model {path}: check the path.") from error
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error
    sums = manifest.get("sha256")
    for name, data in members.items():
        if not isinstance(sums, dict) or sums.get(name) != hashlib.sha256(data).hexdigest():
            raise damaged(path, f"{name} has another checksum than the manifest says")
    return manifest, members


def _check_members(path: Path, file: zipfile.ZipFile) -> None:
    """Nothing packed, nothing foreign, nothing huge: so it cannot unpack to more than it is."""
    for info in file.infolist():
        if info.filename not in (MANIFEST, LEARNER, SUPPORT, TOKENIZER):
            raise damaged(path, f"it holds {info.filename[:60]!r}, which no model has")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise damaged(path, f"{info.filename} is packed, as in no model")
        if info.file_size > (MAX_MANIFEST if info.filename == MANIFEST else MAX_BYTES):
            raise damaged(path, f"{info.filename} has {info.file_size:,} bytes")


def damaged(path: Path, why: str) -> CheckpointError:
    """The error for a file that is not as it was written."""
    return CheckpointError(
        f"{path} is no whole model file ({why}): write it again by `kshot fit`, or copy it again."
    )
