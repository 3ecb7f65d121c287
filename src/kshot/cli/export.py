"""`kshot export`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kshot.cli.evaluate import check_writable
from kshot.errors import ConfigError
from kshot.estimators import load_model
from kshot.estimators.export import export_onnx, export_torch


def export(path: Path, onnx: Path | None, torch: Path | None) -> None:
    """Write the model as ONNX, as a torch.export program, or both."""
    if onnx is None and torch is None:
        raise ConfigError("say what to write: --onnx model.onnx, --torch model.pt2, or both.")
    for target in (onnx, torch):
        check_writable(target)
    model = load_model(path, device="cpu")
    console = Console(highlight=False, soft_wrap=True)
    for target, write in ((onnx, export_onnx), (torch, export_torch)):
        if target is not None:
            write(model, target)
            console.print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", markup=False)
