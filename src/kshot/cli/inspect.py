"""`kshot inspect`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kshot.cli.evaluate import check_writable
from kshot.errors import ConfigError
from kshot.estimators import FewShotClassifier, load_model
from kshot.estimators.inspection_page import write_inspection


def inspect(path: Path, out: Path | None, device: str) -> None:
    """Write the page, and say in a line what is on it."""
    out = out or path.with_suffix(".html")
    check_writable(out, path)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: the page is HTML: give it a name that ends in .html.")
    model = load_model(path, device=device)
    if not isinstance(model, FewShotClassifier):
        raise ConfigError(f"{path} predicts values; confusions are of classes.")
    found = write_inspection(model, out, path.stem)
    console = Console(highlight=False, soft_wrap=True)
    if asked := len(found.rows):
        console.print(f"{found.right} of {asked} examples are recognised by the others")
    else:
        console.print("One example of each class: none can be recognised by the others")
    console.print(
        f"Labels in doubt: {len(found.doubts)}, harmful examples: {len(found.harms)}, "
        f"near duplicates: {len(found.pairs)}"
    )
    console.print(f"Page: {out}", markup=False)
