"""What the networks of a study cost on this machine."""

import dataclasses
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf

from kseg import files
from kseg.benchmark import device, steps, timing
from kseg.errors import UserError, first_line
from kseg.inference import counting
from kseg.models import Segmenter
from kseg.runs.assembly import dtype_policy
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
        compiled: Whether XLA compiled it, by `--jit_compile` of the flagfile.
        memory_mib: Peak memory of a process that takes two training steps with the batch and the
            precision of the flagfile on one device, in MiB; that of the GPU if there is one. None
            if it could not be measured.
    """

    crop: tuple[int, int]
    parameters: int
    multiply_adds: int
    latency_ms: float
    compiled: bool
    memory_mib: float | None


def measure(experiments: Mapping[str, Experiment], num_classes: int) -> dict[str, Cost]:
    """Measures the networks of experiments.

    Args:
        experiments: Name -> experiment.
        num_classes: Number of classes.

    Returns:
        Name -> cost.
    """
    print("measuring latency and memory of the networks", flush=True)
    built, calls, compiled = {}, {}, {}
    for name, experiment in experiments.items():
        built[name] = network(experiment, num_classes)
        image = steps.random_images((1, *experiment.crop_size))
        compiled[name] = steps.compiles(experiment.jit_compile)
        calls[name] = steps.forward(built[name], image, compiled[name])
    latencies = timing.interleaved_ms(calls, REPETITIONS)
    costs = {}
    for name, experiment in progress_bar(experiments.items(), desc="memory", leave=False):
        shape = (1, *experiment.crop_size, 3)
        costs[name] = Cost(
            experiment.crop_size,
            counting.parameters(built[name]),
            counting.cost(built[name], shape).multiply_adds,
            float(latencies[name][1]),
            compiled[name],
            _peak_memory(name, experiment, num_classes),
        )
    return costs


def _peak_memory(name: str, experiment: Experiment, num_classes: int) -> float | None:
    """Returns the peak memory of training steps; prints why if it cannot be measured.

    The batch may be meant for several devices. A study whose runs are finished has its page all the
    same.
    """
    try:
        return timing.peak_memory(step, experiment, num_classes)[0]
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        print(f"{name}: its memory was not measured: {first_line(error)}", file=sys.stderr)
        return None


def network(experiment: Experiment, num_classes: int) -> Segmenter:
    """Builds the network of an experiment as it is applied, with random weights."""
    model = experiment.build_model(num_classes, with_backbone_weights=False)
    return model.without_auxiliary()


def step(experiment: Experiment, num_classes: int) -> Callable[[], object]:
    """Returns a training step of an experiment on random images."""
    shape = (experiment.batch_size, *experiment.crop_size)
    xla = steps.compiles(experiment.jit_compile)
    with dtype_policy(experiment.precision):
        model = network(experiment, num_classes)
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
    place = [platform.node(), device.name(), device.versions(), num_classes, settings]
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
    if any(cost.memory_mib is None for cost in costs.values()):
        return costs  # The next call tries again.
    held = {"key": key, "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()}}
    files.write_text(path, json.dumps(held, indent=1) + "\n")
    return costs
