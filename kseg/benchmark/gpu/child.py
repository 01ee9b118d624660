"""The process in which one part is measured: `python -m kseg.benchmark.gpu.child REQUEST`.

A part has a process of its own, so that it leaves no memory of the GPU behind, can be stopped at
the time limit in the middle of a compilation, and takes nothing with it if it crashes.
"""

import gc
import json
import sys
import traceback

import keras

from kseg import errors
from kseg.benchmark import device
from kseg.benchmark.gpu.measurements import MEASUREMENTS
from kseg.benchmark.gpu.tasks import Settings, Task
from kseg.benchmark.peers.torch_networks import send
from kseg.inference.backend import prepare_backend


def main(request: dict) -> None:
    """Prints the device and the results of the tasks of a request, as `torch_networks` does."""
    prepare_backend()
    send({"device": device.name(), "versions": device.versions()})
    settings = Settings(**request["settings"])
    for task in request["tasks"]:
        send({"task": task, "rows": results(Task(**task), settings)})
        keras.backend.clear_session()
        gc.collect()


def results(task: Task, settings: Settings) -> list[dict]:
    """Returns the rows of a task; one that tells the reason if it fails."""
    try:
        return list(MEASUREMENTS[task.part](task, settings))
    except Exception as error:  # The other tasks are measured all the same.
        traceback.print_exc()
        name = type(error).__name__
        reason = errors.explanation(error) or f"{name}: {errors.first_line(error)}"
        return [{"note": f"failed: {reason}"}]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
