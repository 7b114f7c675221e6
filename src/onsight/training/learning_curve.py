"""learning_curve(spec) -> Curve: accuracy against the number of training images, and whether more images would help.

Every size is trained as an ordinary run and judged on the same validation images. The test set is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onsight.core.errors import SpecError
from onsight.core.files import make_folder, now, numbered_folder, write_json
from onsight.core.progress import Reporter
from onsight.core.records import CurvePoint, CurveRecord, CurveVerdict, PowerFit
from onsight.core.text import count, percent
from onsight.data.load import load_dataset
from onsight.display.reporters import make_reporter
from onsight.metrics.distributions import t_quantile
from onsight.metrics.intervals import deviation, mean, share_interval
from onsight.reporting import plot_style, plots
from onsight.runs.run import Run
from onsight.spec import TrainSpec
from onsight.training.train import as_spec, same_start, train

SIZES = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # images per class
WORTH = 0.01  # of accuracy: the gain from doubling the images that makes collecting them worthwhile
DRAWS = 2000  # of the bootstrap
LAST = 3  # sizes that a power law is fitted to
FLOOR_LAST = 4  # sizes, where there are so many, that a power law above a floor is fitted to: it has one more parameter
FLOORS = np.linspace(0, 0.95, 20)  # tried floors, as shares of the smallest error
UNJUDGED = "A learning curve is judged on validation images: choose a --validation above 0."


class Curve(NamedTuple):
    """A learning curve.

    Attributes:
        folder: holds curve.json and curve.png.
        record: the content of curve.json.
    """

    folder: Path
    record: CurveRecord


def learning_curve(
    spec: TrainSpec | str | Path,
    *,
    sizes: Sequence[int] | None = None,
    seeds: int = 3,
    out: Path | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Curve:
    """Train `spec` on some, more and all images of each class, several times, and fit how the errors fall.

    The error of the last three sizes is fitted as a * shots ** -b (Hestness et al. 2017, "Deep Learning Scaling is
    Predictable, Empirically"). This curve has no floor below which more images do not help, so its forecast is the
    most that they can bring.

    Args:
        spec: what to train, on what data and how; or only the data.
        sizes: images per class; by default 5, 10, 20, 50 and so on, up to the size of the classes, and all of them.
        seeds: trainings per size, each on other images.
        out: folder for curve.json and curve.png; by default curves/ and the name of the data set.
        reporter: receives the progress.
        **options: not accepted, as for `train`.

    Raises:
        SpecError: there are no validation images, or too few sizes, or `out` cannot be created.
        OnsightError: as `train` raises them; finished runs stay.
    """
    spec = as_spec(spec, options, "learning_curve")
    show = reporter or make_reporter()
    check_request(spec, sizes, seeds, out, show)
    points = measure_points(Trainings(spec, seeds, show), sorted(set(sizes or ())))
    fit = fit_power(points)
    record: CurveRecord = {
        "created": now(),
        "data": points[0]["data"],
        "asked": spec.model_dump(mode="json", exclude_unset=True),
        "points": points,
        "fit": fit,
        "verdict": verdict(points, fit),
    }
    folder = out or numbered_folder(Path("curves"), points[0]["data"])
    write_json(folder / "curve.json", record)
    plot_style.save(plots.learning_curve(points, fit, record["verdict"]["headline"]), folder / "curve.png")
    return Curve(folder, record)


def check_request(spec: TrainSpec, sizes: Sequence[int] | None, seeds: int, out: Path | None, show: Reporter) -> None:
    """Raise SpecError, before anything is trained, if no curve can be made. The arguments are `learning_curve`'s."""
    if seeds < 1:
        raise SpecError(f"seeds={seeds} trains nothing; expected 1 or more.")
    if spec.shots is not None:
        raise SpecError("A learning curve chooses the shots itself: leave --shots out, or give --sizes.")
    if len(set(sizes or ())) == 1:
        raise SpecError(f"A curve needs two sizes or more, but --sizes has only {sizes[0] if sizes else ''}.")
    if out:
        make_folder(out)
    if spec.validation == 0:
        dataset = load_dataset(spec.data, spec.data_dir, show.work, reading=spec.reading)
        if "validation" in dataset.parts:
            return
        raise SpecError(UNJUDGED)


class Trainings:
    """The trainings of a curve. They share one split and the initial weights.

    Attributes:
        runs: all runs so far, in the order of training.
    """

    def __init__(self, spec: TrainSpec, seeds: int, show: Reporter) -> None:
        self.spec, self.seeds, self.show = spec, seeds, show
        self.runs: list[Run] = []

    def measure(self, shots: int | None) -> CurvePoint:
        """Train once per seed on `shots` images per class, None for all of them; return the accuracies."""
        asked = self.spec.model_dump(exclude_unset=True)
        for each in range(self.seeds):
            images = count(shots, "image") if shots else "all images"
            self.show.note("curve", f"{images} per class, {each + 1} of {self.seeds}")
            split_seed = self.runs[0].spec["split_seed"] if self.runs else self.spec.split_seed
            more = {"seed": self.spec.seed + each, "split_seed": split_seed, "shots": shots}
            spec = same_start(TrainSpec(**{**asked, **more}), self.runs)
            self.runs.append(train(spec, reporter=self.show))
            if not sum(self.runs[-1].dataset["counts"]["validation"].values()):
                raise SpecError(UNJUDGED)
        return curve_point(self.runs[-self.seeds :])

    def largest_class(self) -> int:
        """Return how many training images the largest class of the last run has."""
        return max(self.runs[-1].dataset["counts"]["train"].values())


def curve_point(runs: Sequence[Run]) -> CurvePoint:
    """Return one point of a curve from the runs of one size."""
    counts = runs[0].dataset["counts"]["train"]
    n = sum(runs[0].dataset["counts"]["validation"].values())
    accuracies = [float((run.model_epoch() or {})["val_accuracy"]) for run in runs]
    low, high = interval(accuracies, n)
    return {
        "shots": round(sum(counts.values()) / len(counts)),  # fewer than asked for if a class has fewer
        "pictures": sum(counts.values()),
        "accuracies": accuracies,
        "accuracy": mean(accuracies),
        "low": low,
        "high": high,
        "n": n,
        "runs": [run.name for run in runs],
        "data": runs[0].dataset["name"],
    }


def measure_points(trainings: Trainings, wanted: Sequence[int]) -> list[CurvePoint]:
    """Return the points of the curve, fewest images first; without `wanted` sizes the usual ones and all images.

    Raises:
        SpecError: there are fewer than two points.
    """
    everything = None
    if not wanted:  # all images first: then their number is known
        everything = trainings.measure(None)
        wanted = [size for size in SIZES if size < 0.75 * everything["shots"]]
    points: list[CurvePoint] = []
    for size in wanted:
        point = trainings.measure(size)
        if not points or point["shots"] > points[-1]["shots"]:
            points.append(point)
        most = trainings.largest_class()
        if most < size:
            trainings.show.note("curve", f"no class has more than {count(most, 'image')}, so larger sizes are left out")
            break
    points += [everything] if everything else []
    if len(points) < 2:
        raise SpecError(f"A curve needs two sizes or more, but it has {len(points)}. Give --sizes, or add images.")
    return points


def interval(accuracies: Sequence[float], n: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean accuracy: that of n images, widened if the seeds differ by more."""
    middle = mean(accuracies)
    low, high = share_interval(round(middle * n), n)
    if len(accuracies) > 1:
        half = t_quantile(0.975, len(accuracies) - 1) * (deviation(accuracies) or 0.0) / len(accuracies) ** 0.5
        low, high = min(low, middle - half), max(high, middle + half)
    return max(0.0, low), min(1.0, high)


def fit_power(points: Sequence[CurvePoint]) -> PowerFit | None:
    """Return a and b of error = a * shots ** -b through the last three sizes, and the gain from doubling the images.

    Errors often end at a floor: labels are wrong, or images show too little. A power law has none, and more sizes pull
    it further above the floor, so it is fitted to the last three only, and its gain is a bound: at most so much. The
    95 % interval is a bootstrap: seeds are drawn with replacement, and each error from what n validation images leave
    open (Jeffreys: a beta distribution, which is wide even if all of a few images are right). Its upper end is that of
    the power law, its lower end that of error = floor + a * shots ** -b through the last four sizes, with the floor
    that fits each draw best. None if fewer than three sizes were trained.
    """
    if len(points) < LAST:
        return None
    last = points[-FLOOR_LAST:]
    n = last[0]["n"]
    shots = np.array([point["shots"] for point in last], float)
    # No mistake on n images does not mean no mistakes ever.
    errors = np.maximum(1 - np.array([[point["accuracy"] for point in last[-LAST:]]]), 0.5 / n)
    slope, offset = np.polyfit(np.log(shots[-LAST:]), np.log(errors[0]), 1)
    rng = np.random.default_rng(0)
    seeds = [rng.choice(point["accuracies"], (DRAWS, len(point["accuracies"]))).mean(axis=1) for point in last]
    right = n * np.stack(seeds, axis=1)
    drawn = np.maximum(rng.beta(n + 0.5 - right, right + 0.5), 0.5 / n)
    gains, misfits = doubled(shots, drawn)
    low = np.percentile(gains[np.arange(DRAWS), misfits.argmin(axis=1)], 2.5)
    high = np.percentile(doubled(shots[-LAST:], drawn[:, -LAST:])[0][:, 0], 97.5)
    gain = float(doubled(shots[-LAST:], errors)[0][0, 0])
    return {
        "a": float(np.exp(offset)),
        "b": float(-slope),
        "since": int(shots[-LAST]),
        "gain": gain,
        "gain_interval": [float(low), float(high)],
    }


def doubled(shots: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, F) gains in accuracy from twice the images, and (m, F) sums of squared errors of the fit.

    `errors` (m, sizes) are fitted to floor + a * shots ** -b by least squares in logarithms, for F floors: shares of
    the smallest error of a row, of which the first is 0.
    """
    floors = FLOORS * errors.min(axis=1, keepdims=True)  # (m, F)
    x = np.log(shots) - np.log(shots).mean()
    y = np.log(errors[:, None] - floors[..., None])  # (m, F, sizes)
    slope, level = y @ x / (x @ x), y.mean(axis=2)
    fitted = np.exp(level[..., None] + slope[..., None] * x)
    misfits = ((fitted + floors[..., None] - errors[:, None]) ** 2).sum(axis=2)
    return fitted[..., -1] * (1 - 2.0**slope), misfits


def verdict(points: Sequence[CurvePoint], fit: PowerFit | None) -> CurveVerdict:
    """Return whether collecting more images would help; `pays` is None if that cannot be decided."""
    before, last = points[-2], points[-1]
    step = last["accuracy"] - before["accuracy"]
    facts = (
        f"From {before['shots']:,} to {last['shots']:,} images per class, accuracy went from "
        f"{percent(before['accuracy'])} to {percent(last['accuracy'])} (mean of "
        f"{count(len(last['accuracies']), 'training')}, n = {last['n']:,})"
    )
    if fit is None:
        return {
            "pays": None,
            "headline": f"The last step brought {100 * step:+.1f} points; too few sizes for a forecast",
            "text": f"{facts}. A forecast needs three sizes or more: give more --sizes.",
        }
    if last["n"] * WORTH < 1:
        headline = f"{count(last['n'], 'validation image')} are too few to say whether more images would help"
        text = f"{headline}: one of them is {100 / last['n']:.1f} points. {facts}. A larger --validation says more."
        return {"pays": None, "headline": headline, "text": text}
    low, high = fit["gain_interval"]
    ahead = (
        f"If the errors keep falling as they did over the last {LAST} sizes, twice the images bring at most "
        f"{100 * fit['gain']:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f}; the lower end allows for a "
        "floor that more images do not remove)"
    )
    if low >= WORTH:
        pays: bool | None = True
        headline = f"Collecting more images would help: twice as many bring at most {100 * fit['gain']:.1f} points"
    elif high < WORTH:
        pays, headline = False, f"More images would hardly help: twice as many bring less than {100 * WORTH:g} point"
    else:
        pays, headline = None, "These sizes do not show whether more images would help"
    return {"pays": pays, "headline": headline, "text": f"{headline}. {facts}. {ahead}."}


def lines(curve: Curve) -> list[str]:
    """Return the lines that the command prints."""
    rows = [
        f"{point['shots']:>7,} per class   {percent(point['accuracy'])}   "
        f"(95 %: {100 * point['low']:.1f} to {100 * point['high']:.1f})"
        for point in curve.record["points"]
    ]
    return [*rows, curve.record["verdict"]["text"], f"Plot: {curve.folder / 'curve.png'}"]
