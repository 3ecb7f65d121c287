"""What the tests of image data sets share."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = os.environ.get("KSHOT_DATA")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no data of the user's."""
    monkeypatch.setenv("KSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KSHOT_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def real_data(tmp_path_factory) -> Iterator[Path]:
    """The folder of real data, with an empty cache."""
    if not REAL:
        pytest.skip("KSHOT_DATA is not set: it names the folder of real data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KSHOT_DATA", REAL)
        patch.setenv("KSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Path(REAL)


@pytest.fixture
def make_images():
    """Write images of noise, no two of them equal, at these paths below a folder."""
    generator = np.random.default_rng(0)

    def make(folder: Path, *names: str, side: int = 8, mode: str = "RGB") -> Path:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = generator.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(noise).convert(mode).save(path)
        return folder

    return make


@pytest.fixture
def pack():
    """Pack a folder's content into a zip archive."""

    def make(folder: Path, archive: Path) -> Path:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in folder.rglob("*"):
                file.write(path, path.relative_to(folder))
        return archive

    return make
