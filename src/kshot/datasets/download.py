"""Publishers' files, fetched once: progress, checksum, retries, mirrors; whole or not at all."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pooch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from kshot.errors import DataError
from kshot.files import cache_folder

RETRIES = 2
TIMEOUT = 30
"""Seconds without an answer."""


def fetch(urls: Sequence[str], checksum: str, *, place: str) -> Path:
    """The file behind the first of `urls` that gives it, from the cache if it is there.

    Args:
        urls: the publisher's address and mirrors; the file is named as in the first.
        checksum: such as `md5:0123...`; a file that differs is thrown away.
        place: where a file fetched by hand belongs, for the message.

    Raises:
        DataError: if no address gives the file, with what to fetch and where to put it.
    """
    folder = cache_folder() / "downloads"
    name = urls[0].rpartition("/")[2]
    pooch.get_logger().setLevel(logging.ERROR)
    for url in urls:
        with _Bar(name) as bar:
            downloader = pooch.HTTPDownloader(bar, chunk_size=2**16, timeout=TIMEOUT)
            try:
                return Path(_retrieve(url, checksum, name, folder, downloader))
            except (OSError, ValueError) as error:
                reason = _short(error)
    raise DataError(
        f"{name} could not be downloaded ({reason}): get it from {urls[0]} and put it into {place}."
    )


def _short(error: Exception) -> str:
    """The reason within the wrappings of the libraries that met it."""
    text = " ".join(str(error).split()).strip("('")
    system = re.search(r"\[Errno -?\d+\] ([\w ]+)", text)
    return system[1] if system else re.split(r" for url|: expected|[.]?',", text)[0]


def _retrieve(
    url: str, checksum: str, name: str, folder: Path, downloader: pooch.HTTPDownloader
) -> str:
    keeper = pooch.create(
        folder, base_url="", registry={name: checksum}, urls={name: url}, retry_if_failed=RETRIES
    )
    path: str = keeper.fetch(name, downloader=downloader)
    return path


class _Bar:
    """What pooch tells of its progress, as a bar of rich's."""

    total = 0

    def __init__(self, name: str) -> None:
        self.progress = Progress(
            TextColumn("Downloading {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            transient=True,
        )
        self.task = self.progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def update(self, done: int) -> None:
        self.progress.update(self.task, advance=done, total=self.total)

    def reset(self) -> None:
        self.progress.reset(self.task)

    def close(self) -> None:
        self.progress.refresh()
