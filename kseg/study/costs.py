"""What the networks of a study cost on this machine."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import keras

from kseg import files
from kseg.benchmark import steps, timing
from kseg.inference import counting
from kseg.models import Segmenter
from kseg.runs.experiment import Experiment
from kseg.visualization.progress import progress_bar

REPETITIONS = 20


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        crop: Height and width of the images of all other values, the training crop.
        parameters: Number of trainable parameters.
        multiply_adds: Number of multiply-adds of one image forward.
        latency_ms: Milliseconds of one image forward, the median of 20 while the networks take
            turns.
        memory_mib: Peak memory of a process that takes two training steps with the batch of the
            flagfile, in MiB. Memory of a GPU does not count.
    """

    crop: tuple[int, int]
    parameters: int
    multiply_adds: int
    latency_ms: float
    memory_mib: float


def measure(experiments: Mapping[str, Experiment], num_classes: int) -> dict[str, Cost]:
    """Measures the networks of experiments.

    Args:
        experiments: Name -> experiment.
        num_classes: Number of classes.

    Returns:
        Name -> cost.
    """
    print("measuring latency and memory of the networks", flush=True)
    built, calls = {}, {}
    for name, experiment in experiments.items():
        built[name] = network(experiment, num_classes)
        image = steps.random_images((1, *experiment.crop_size))
        calls[name] = steps.forward(built[name], image, steps.compiles("auto"))
    latencies = timing.interleaved_ms(calls, REPETITIONS)
    costs = {}
    for name, experiment in progress_bar(experiments.items(), desc="memory", leave=False):
        shape = (1, *experiment.crop_size, 3)
        peak, _ = timing.peak_memory(step, experiment, num_classes)
        costs[name] = Cost(
            experiment.crop_size,
            counting.parameters(built[name]),
            counting.cost(built[name], shape).multiply_adds,
            float(latencies[name][1]),
            peak,
        )
    return costs


def network(experiment: Experiment, num_classes: int) -> Segmenter:
    """Builds the network of an experiment as it is applied, with random weights."""
    model = experiment.build_model(num_classes, with_backbone_weights=False)
    return model.without_auxiliary()


def step(experiment: Experiment, num_classes: int) -> Callable[[], object]:
    """Returns a training step of an experiment on random images."""
    shape = (experiment.batch_size, *experiment.crop_size)
    model, xla = network(experiment, num_classes), steps.compiles("auto")
    steps.compile_by_recipe(model, xla)
    images, labels = steps.random_images(shape), steps.random_labels(shape, num_classes)
    return steps.training_step(model, images, labels, xla)


def measured_once(
    path: Path, experiments: Mapping[str, Experiment], num_classes: int
) -> dict[str, Cost]:
    """Measures the networks of experiments, unless a file holds what was measured here before.

    Args:
        path: The file, which is written otherwise.
        experiments: See `measure`.
        num_classes: See `measure`.
    """
    settings = {
        name: {key: str(value) for key, value in experiment.values().items()}
        for name, experiment in experiments.items()
    }
    place = [platform.node(), keras.version(), keras.config.backend(), num_classes, settings]
    key = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["key"] == key:
            return {
                name: Cost(**values | {"crop": tuple(values["crop"])})
                for name, values in held["costs"].items()
            }
    except (OSError, ValueError, KeyError, TypeError):
        pass
    costs = measure(experiments, num_classes)
    held = {"key": key, "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()}}
    files.write_text(path, json.dumps(held, indent=1) + "\n")
    return costs
