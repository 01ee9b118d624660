"""The memory of a step in a process of its own; `kseg.benchmark.timing.peak_memory` runs it."""

import importlib
import json
import re
import sys
from pathlib import Path


def main() -> None:
    module, arguments = sys.argv[1], json.loads(sys.argv[2])
    step = importlib.import_module(module).step(**arguments)
    before = _peak_mib()
    for _ in range(2):
        step()
    print(json.dumps([before, _peak_mib()]))


def _peak_mib() -> float:
    # Not `ru_maxrss`, which a process inherits from the one that started it. Linux only.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    main()
