"""What several tests share."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kshot.cli.app import main

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

# Where the tests run in the background Ctrl-C is ignored, and would be by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in an empty folder, within this process."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["kshot", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def program(tmp_path: Path) -> Cli:
    """Run the command line in an empty folder, as a program of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kshot", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            **options,  # type: ignore[call-overload]
        )

    return run


SMALL = [
    "--set=dataset.name=glyphs",
    "--set=encoder.channels=8",
    "--set=train.way=5",
    "--set=train.steps=4",
    "--set=validation.way=5",
    "--set=validation.episodes=4",
    "--set=validation.every=2",
    "--set=evaluation=[{episodes=4}]",
    "--quiet",
]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished, tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    command = [sys.executable, "-m", "kshot", "train", *SMALL, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder
