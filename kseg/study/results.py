"""The results of a study: the scores of each module, and its differences to the first one."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

from kseg.compare.runs import Run, protocol_differences, read_run
from kseg.errors import UserError
from kseg.inference.image_predictions import Predictions, iou
from kseg.study import statistics
from kseg.study.evaluations import PREDICTIONS
from kseg.study.plan import StudyRun
from kseg.study.statistics import Interval


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run that has been evaluated.

    Attributes:
        run: The run.
        scores: Its scores, as `kseg.compare` reads them.
        predictions: Its predictions and pixel counts.
        classes: Ids of the classes of `score`; empty for all that are labelled.
    """

    run: StudyRun
    scores: Run
    predictions: Predictions
    classes: tuple[int, ...]

    @property
    def score(self) -> float:
        """The mean IoU over `classes`, in 0..1."""
        if self.classes:
            return self.scores.measured["mean_over"]["iou"]
        return self.scores.miou

    @property
    def class_iou(self) -> np.ndarray:
        """The IoU of each class; NaN for classes without labelled pixels."""
        return iou(self.predictions.counts.sum(axis=0))


@dataclasses.dataclass(frozen=True)
class Module:
    """A flagfile and its measured runs.

    Attributes:
        flagfile: Name of the flagfile.
        name: The same without what the names of all flagfiles begin with.
        runs: Seed -> run.
    """

    flagfile: str
    name: str
    runs: Mapping[int, Measured]

    @property
    def first(self) -> Measured:
        """The run with the first seed."""
        return next(iter(self.runs.values()))

    @property
    def scores(self) -> list[float]:
        """The score of each seed."""
        return [measured.score for measured in self.runs.values()]

    @property
    def class_iou(self) -> np.ndarray:
        """The IoU of each class, the mean over the seeds."""
        return np.mean([measured.class_iou for measured in self.runs.values()], axis=0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of a module to the first one, over the seeds that both have.

    Attributes:
        module: Name of the module.
        first: Name of the first module.
        seeds: The seeds.
        values: The difference of the scores for each of them.
        over_seeds: 95 % interval by Student's t; None for a single seed.
        over_images: 95 % interval by the bootstrap over the images, averaged over the seeds.
        classes: Difference of the IoU of each class for each seed, `(seeds, classes)`.
    """

    module: str
    first: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    over_seeds: Interval | None
    over_images: Interval
    classes: np.ndarray

    @property
    def mean(self) -> float:
        """The mean difference."""
        return statistics.mean(self.values)

    @property
    def sentence(self) -> str:
        """What the intervals say, in words."""
        names = {"seeds": self.over_seeds, "images": self.over_images}
        known = {name: interval for name, interval in names.items() if interval}
        holding = [name for name, interval in known.items() if interval.contains_0]
        alone = "" if self.over_seeds else " With one seed there is no interval over seeds."
        if holding:
            over = " and over ".join(holding)
            what = "interval over" if len(holding) == 1 else "intervals over"
            contain = "contains" if len(holding) == 1 else "contain"
            return (
                f"The difference of {self.module} to {self.first} is within noise: its {what} "
                f"{over} {contain} 0.{alone}"
            )
        which = "higher" if self.mean > 0 else "lower"
        both = "neither interval contains" if len(known) > 1 else "the interval does not contain"
        return (
            f"{self.module} is {abs(100 * self.mean):.1f} points {which} than {self.first}, and "
            f"{both} 0.{alone}"
        )


def read_modules(runs: Sequence[StudyRun]) -> list[Module]:
    """Reads the scores of runs that have been evaluated alike.

    Args:
        runs: The runs.

    Returns:
        The modules in the order of their runs.

    Raises:
        UserError: A file cannot be read, the runs were not measured alike, or a class of
            `--mean_over` has no labelled pixels.
    """
    found: dict[str, dict[int, Measured]] = {}
    for run in runs:
        scores = read_run(run.folder, run.name)
        over = (scores.measured or {}).get("mean_over", {"classes": (), "iou": math.nan})
        if over["iou"] is None:
            raise UserError(
                "`--mean_over` in `--evaluate` must hold classes with labelled pixels in the "
                f"split. Received: {', '.join(over['classes'])}"
            )
        names = run.folder.label_set.names
        predictions = Predictions(run.folder.path / PREDICTIONS)
        classes = tuple(names.index(name) for name in over["classes"])
        found.setdefault(run.stem, {})[run.seed] = Measured(run, scores, predictions, classes)
    every = [measured.scores for module in found.values() for measured in module.values()]
    if differing := protocol_differences(every):
        raise UserError(f"The runs must be measured alike. Received: {'; '.join(differing)}")
    start = len(common_start(list(found)))
    return [Module(stem, stem[start:], module) for stem, module in found.items()]


def common_start(names: Sequence[str]) -> str:
    """Returns what all names begin with, up to and with an underscore; empty for one name."""
    if len(names) < 2:
        return ""
    start = os.path.commonprefix(names)
    return start[: start.rfind("_") + 1]


def differences(modules: Sequence[Module]) -> list[Difference]:
    """Returns the difference of each further module to the first one.

    Modules that have no seed in common with the first one are left out.
    """
    first, *others = modules
    weights = statistics.bootstrap_weights(len(first.first.predictions.names))
    drawn = {
        (module.name, seed): statistics.resampled_scores(
            weights, measured.predictions.counts, measured.classes
        )
        for module in modules
        for seed, measured in module.runs.items()
    }
    found = []
    for module in others:
        seeds = tuple(seed for seed in first.runs if seed in module.runs)
        if not seeds:
            continue
        pairs = [(module.runs[seed], first.runs[seed]) for seed in seeds]
        values = tuple(mine.score - theirs.score for mine, theirs in pairs)
        draws = [drawn[module.name, seed] - drawn[first.name, seed] for seed in seeds]
        found.append(
            Difference(
                module.name,
                first.name,
                seeds,
                values,
                statistics.t_interval(values),
                statistics.bootstrap_interval(np.mean(draws, axis=0)),
                np.array([mine.class_iou - theirs.class_iou for mine, theirs in pairs]),
            )
        )
    return found


def curve(module: Module) -> tuple[list[int], list[float], list[float]]:
    """Returns the validations during training at the steps that all seeds have.

    Returns:
        Steps, mean mIoU and sample standard deviation over the seeds, which is 0 for one seed.
    """
    points = [dict(measured.scores.curve) for measured in module.runs.values()]
    steps = sorted(set.intersection(*(set(seed) for seed in points)))
    values = [[seed[step] for seed in points] for step in steps]
    spread = [statistics.deviation(at_step) for at_step in values]
    return (
        steps,
        [statistics.mean(at_step) for at_step in values],
        [0.0 if math.isnan(value) else value for value in spread],
    )
