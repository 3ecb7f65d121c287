"""`kshot episodes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from kshot.cli.evaluate import check_picture
from kshot.datasets import Split, load
from kshot.datasets.sources import feature_shape
from kshot.episodes import EpisodeSpec, class_names, draw
from kshot.errors import EpisodeError
from kshot.evaluation.plots import episode_picture
from kshot.evaluation.record import with_options
from kshot.files import atomic
from kshot.training.config import read_settings


def episodes(
    dataset: str,
    settings: Sequence[str],
    split: str,
    spec: EpisodeSpec,
    count: int,
    seed: int,
    out: Path,
) -> None:
    """Draw the first `count` episodes below each other."""
    check_picture(out)
    source = load(dataset, **read_settings(settings))[split]
    if not isinstance(source, Split) or len(feature_shape(source.x)) != 3:
        raise EpisodeError(f"{dataset} has no images to draw: choose another data set.")
    where = with_options(source.name, source.options)
    pictures = [
        _pixels(
            episode_picture(
                draw(source, spec, seed, [i]),
                title=f"{where}, episode {i}",
                names=class_names(source, spec, seed, [i])[0],
            )
        )
        for i in range(count)
    ]
    page = Image.new(
        "RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white"
    )
    top = 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height
    with atomic(out) as temporary:
        page.save(temporary, format="PNG")
    Console(highlight=False).print(f"{count} episodes ({spec.describe()}) of {where}: {out}")


def _pixels(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
