"""The memory of a step in a process of its own; `kseg.benchmarks.timing.peak_memory` runs it."""

import importlib
import json
import resource
import sys


def main() -> None:
    module, arguments = sys.argv[1], json.loads(sys.argv[2])
    step = importlib.import_module(module).step(**arguments)
    before = _peak_mib()
    for _ in range(2):
        step()
    print(json.dumps([before, _peak_mib()]))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
