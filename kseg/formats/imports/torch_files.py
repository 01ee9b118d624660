"""Weight files of torch: safetensors, which need no other package, and files of `torch.save`."""

import json
import math
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from kseg.errors import UserError, first_line, missing_extra
from kseg.formats.imports.torch_names import keras_axes
from kseg.formats.imports.variables import Variables

_PICKLED = (".pth", ".pt", ".bin")
_SUFFIXES = (".safetensors", *_PICKLED)
_FLOATS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(tf.bfloat16.as_numpy_dtype),
}


def is_torch_file(path: str | os.PathLike) -> bool:
    """Returns whether the name of a file is that of a weight file of torch."""
    return os.fspath(path).endswith(_SUFFIXES)


def open_torch_file(path: str | os.PathLike) -> Variables:
    """Opens a weight file of torch.

    Args:
        path: A file of safetensors, or of `torch.save` (`.pth`, `.pt` or `.bin`), which is read
            without running code that it may contain and needs the extra `torch`.

    Returns:
        The variables under their names in torch, float32, with the axes in the order of Keras.

    Raises:
        UserError: If the file cannot be read or does not hold named tensors, or if torch is needed
            and not installed.
    """
    path = os.fspath(path)
    variables = (_open_pickled if path.endswith(_PICKLED) else _open_safetensors)(path)
    axes = {name: keras_axes(name, len(shape)) for name, shape in variables.shapes.items()}
    return Variables(
        path,
        {name: tuple(variables.shapes[name][axis] for axis in axes[name]) for name in axes},
        lambda name: variables.get(name).transpose(axes[name]),
    )


def _open_safetensors(path: str) -> Variables:
    """The file: 8 bytes with the length of the header, the header as JSON, and the arrays."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            start, size = 8 + length, os.path.getsize(path)
            if start > size:
                raise ValueError(f"its header of {length} bytes is longer than the file")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            _check_entry(name, entry, size - start)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error

    def get(name):
        entry = entries[name]
        dtype = _FLOATS.get(entry["dtype"])
        if dtype is None:
            raise UserError(
                f"{path} must hold floating point weights of {', '.join(_FLOATS)}. Received: "
                f"{name} of {entry['dtype']}"
            )
        first, _ = entry["data_offsets"]
        count = math.prod(entry["shape"])
        values = np.fromfile(path, dtype, count, offset=start + first)
        return values.reshape(entry["shape"]).astype("float32")

    return Variables(path, {name: tuple(entries[name]["shape"]) for name in entries}, get)


def _check_entry(name: str, entry: dict, size: int) -> None:
    """Raises ValueError unless the array lies within the file and has as many bytes as it needs."""
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= size:
        raise ValueError(f"{name} ends after the end of the file")
    dtype = _FLOATS.get(entry["dtype"])
    if dtype and math.prod(entry["shape"]) * dtype.itemsize != last - first:
        raise ValueError(f"{name} of shape {entry['shape']} has {last - first} bytes")


def _open_pickled(path: str) -> Variables:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", f"`--checkpoint={Path(path).name}`", error) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many kinds.
        raise _unreadable(path, error) from error
    if not isinstance(state, dict):
        raise _unreadable(path, f"it holds a {type(state).__name__}, not named tensors")
    state = state.get("state_dict", state)  # As checkpoints of a training with timm have it.
    tensors = {name: value for name, value in state.items() if torch.is_tensor(value)}
    if not tensors:
        raise _unreadable(path, "it holds no named tensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Variables(path, shapes, lambda name: tensors[name].detach().float().numpy())


def _unreadable(path: str, reason: object) -> UserError:
    return UserError(
        f"`--checkpoint` must be a weight file of torch ({', '.join(_SUFFIXES)}). "
        f"Received: {path}: {first_line(reason)}"
    )
