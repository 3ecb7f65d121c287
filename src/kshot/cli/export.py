"""`kshot export`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kshot.cli.evaluate import check_writable
from kshot.cli.fit import size_of
from kshot.errors import ConfigError
from kshot.estimators import load_model
from kshot.estimators.export import export_onnx, export_torch


def export(path: Path, onnx: Path | None, torch: Path | None) -> None:
    """Write the model as ONNX, as a torch.export program, or both."""
    if onnx is None and torch is None:
        raise ConfigError("say what to write: --onnx model.onnx, --torch model.pt2, or both.")
    if onnx is not None and torch is not None and onnx.resolve() == torch.resolve():
        raise ConfigError(f"--onnx and --torch both name {onnx}: give each a file of its own.")
    for target in (onnx, torch):
        check_writable(target, path)
    model = load_model(path, device="cpu")
    console = Console(highlight=False, soft_wrap=True)
    for target, write in ((onnx, export_onnx), (torch, export_torch)):
        if target is not None:
            write(model, target)
            console.print(f"{target}: {size_of(target)}", markup=False)
