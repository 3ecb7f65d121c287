"""How right a learner is when it is sure: the picture of its calibration."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from kshot.evaluation.confidence import Reliability
from kshot.evaluation.plots import RIGHT, SOFT

COLORS = (SOFT, RIGHT)


def reliability_diagram(curves: Mapping[str, Reliability], title: str) -> Figure:
    """Accuracy over confidence, and how often each confidence is given.

    Args:
        curves: two of them, by name; the second one is what matters.
        title: of the whole.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    above.plot([0, 1], [0, 1], color=SOFT, ls=":", lw=1)
    above.annotate("as right as sure", (0.06, 0.1), color=SOFT, rotation=40, fontsize=9)
    for (name, curve), color in zip(curves.items(), COLORS, strict=True):
        label = f"{name}: error {curve.error:.3f}"
        above.plot(curve.confidence, curve.accuracy, "o-", ms=4, color=color, label=label)
        below.bar(curve.confidence, 100 * curve.share, width=0.03, color=color, alpha=0.7)
    above.set(ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1), title=title)
    above.legend(frameon=False, loc="lower right")
    below.set(xlabel="probability of the answer", ylabel="% of answers")
    return figure
