"""The knee: where one more percent removed starts to cost more than it saves.

What it saves is one percent of the base's parameters; what it costs is perplexity, in percent. So the knee is the share
of the parameters removed at which the slope of log-perplexity first exceeds 1. Between the ratios studied the curve is
the monotone piecewise cubic through the measured points (Fritsch and Carlson 1980; scipy's PchipInterpolator), which
bends nowhere that they do not.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

EXCHANGE = 1.0  # percent of perplexity that one percent of the parameters is worth
STEP = 0.001  # shares of the parameters at which the slope is looked at
FEWEST_POINTS = 3  # the base and two ratios: with one there is no slope but the average


@dataclass(frozen=True)
class Knee:
    """A curve's knee as a share of the parameters removed: 0 at once, infinite nowhere among the ratios studied."""

    at: float
    low: float
    high: float
    costs: tuple[float, float, float]  # what one more percent costs at the base, the first share and the last


def find_knee(removed: np.ndarray, losses: np.ndarray, drawn: np.ndarray, confidence: float) -> Knee | None:
    """Return the knee of a curve with its interval, None where it has too few points.

    `removed` are shares of the parameters, shape (points,), the base's 0 among them; `losses` the mean losses there,
    nats per token, shape (points,); `drawn` the same of every bootstrap sample, shape (samples, points).
    """
    shares, places = np.unique(removed, return_inverse=True)
    if len(shares) < FEWEST_POINTS:
        return None
    average = (places[:, None] == np.arange(len(shares))) / np.bincount(places)  # variants of one size count as one
    (at,), slopes = crossings(shares, (losses @ average)[None])
    samples, _ = crossings(shares, drawn @ average)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(samples, ends, method="closest_observation")  # of infinities there is nothing in between
    return Knee(float(at), float(low), float(high), (float(slopes[0]), float(slopes[1]), float(slopes[-1])))


def crossings(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where every curve's slope first exceeds the exchange rate, shape (curves,), and the first's slopes at `x`.

    `x` is ascending, shape (points,); `y` are curves over it, shape (curves, points).
    """
    slope = PchipInterpolator(x, y, axis=1).derivative()
    places = np.linspace(x[0], x[-1], max(2, round((x[-1] - x[0]) / STEP) + 1))
    dear = slope(places) > EXCHANGE
    return np.where(dear.any(axis=1), places[dear.argmax(axis=1)], np.inf), slope(x)[0]


def sentence(name: str, knee: Knee, removed: list[float], ratios: list[float], confidence: float) -> str:
    """Return what the knee says, for the report. `ratios` are the specified ratios at `removed`, both ascending."""
    start, first, last = (f"{cost:.2f} %" for cost in knee.costs)
    costs = f"it costs {start} at the base, {first} at ratio {ratios[1]:g} and {last} at {ratios[-1]:g}"
    bounds = f"{100 * confidence:g} % interval {percent(knee.low)} to {percent(knee.high)}"
    if knee.at == 0:
        return (
            f"**{name}**: already the first percent removed costs more than one percent of perplexity, so more than it "
            f"saves (knee: {bounds}); {costs}."
        )
    if np.isinf(knee.at):
        return (
            f"**{name}**: one more percent removed costs less than one percent of perplexity, so less than it saves, "
            f"up to the last ratio studied (knee: {bounds}); {costs}."
        )
    ratio = np.interp(knee.at, removed, ratios)
    return (
        f"**{name}**: the knee is at {percent(knee.at)} of the parameters removed ({bounds}), a ratio of about "
        f"{ratio:.2f}: from there on one more percent removed costs more than one percent of perplexity; {costs}."
    )


def percent(share: float) -> str:
    """Return a knee as it is printed."""
    return "beyond the last ratio" if np.isinf(share) else f"{100 * share:.1f} %"
