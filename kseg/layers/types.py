"""Types used in the signatures of layers."""

from typing import Any, TypeAlias

# A tensor of the backend, a `keras.KerasTensor`, or an array that converts to one.
Tensor: TypeAlias = Any

# Sizes of a tensor; None where a size is not known until the layer runs.
Shape: TypeAlias = tuple[int | None, ...]
