"""Run folders as commit 1911dc0 wrote them, kept as text; see README.md.

No kseg here: a change of kseg must not change what an old run looks like.
"""

import json
import math
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).resolve().parent
RUNS = tuple(sorted(path.parent.name for path in FIXTURE.glob("*/arrays.json")))
_COPIED = ("labels.json", "environment.json", "metrics.csv")


def write_run(name: str, folder: str | Path, data_dir: str | Path, seed: int = 0) -> Path:
    """Writes the folder of an old run, with checkpoints that hold values from a generator.

    The text files are those of the run, and every checkpoint has its arrays by name, shape, dtype
    and order. Integers and scalars (seed states, counters, running metrics) and the position have
    the values of the run. All other arrays are random, of a size that keeps the network's answers
    finite. Checkpoints of the same step are equal, as `best.npz` and the one it was made with.

    Args:
        name: One of `RUNS`.
        folder: Folder of the run, the new `model_dir`. It is made if it is missing.
        data_dir: What the run's `experiment.flags` names as its data.
        seed: Seed of the random arrays.

    Returns:
        The folder.

    Raises:
        ValueError: If there is no run of that name.
    """
    if name not in RUNS:
        raise ValueError(f"`name` must be one of {', '.join(RUNS)}. Received: {name!r}")
    source, folder = FIXTURE / name, Path(folder)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for file_name in _COPIED:
        (folder / file_name).write_bytes((source / file_name).read_bytes())
    text = (source / "experiment.flags").read_text(encoding="utf-8")
    for flag, value in (("data_dir", data_dir), ("model_dir", folder)):
        text = text.replace(f"--{flag}=\n", f"--{flag}={value}\n")
    (folder / "experiment.flags").write_text(text, encoding="utf-8")

    kept = json.loads((source / "arrays.json").read_text(encoding="utf-8"))
    arrays = _listed(kept["arrays"])
    for file_name, checkpoint in kept["checkpoints"].items():
        position, values = checkpoint["position"], checkpoint["values"]
        rng = np.random.default_rng([seed, json.loads(position)["step"]])
        filled = {
            key: np.array(values[key], dtype) if key in values else _random(rng, key, dtype, shape)
            for key, dtype, shape in arrays
        }
        np.savez(folder / "checkpoints" / file_name, **filled, position=np.array(position))
    return folder


def _listed(entries: list) -> list[tuple[str, str, list[int]]]:
    """The name, dtype and shape of all arrays; a text such as "mobilenet_v2 weights" is a list."""
    arrays = []
    for entry in entries:
        if isinstance(entry, str):
            backbone, part = entry.split()
            arrays += json.loads((FIXTURE / f"{backbone}.json").read_text(encoding="utf-8"))[part]
        else:
            arrays.append(entry)
    return arrays


def _random(rng: np.random.Generator, name: str, dtype: str, shape: list[int]) -> np.ndarray:
    """Values around 1 for scales and variances, around 0 for all else."""
    noise = rng.standard_normal(shape, "float32")
    if name.endswith(("/gamma", "/moving_variance")):
        values = 1 + 0.2 * np.tanh(noise)
    elif name.endswith("/kernel"):
        inputs = shape[:2] if "depthwise" in name else shape[:-1]
        values = noise / math.sqrt(math.prod(inputs))
    elif name.endswith("_momentum"):
        values = 0.001 * noise
    else:  # biases, moving means
        values = 0.1 * noise
    return values.astype(dtype)
