"""Predicts images with a trained run."""

import contextlib

from kseg.data.vector_files import load_fiona
from kseg.errors import UserError

# Before TensorFlow, which the next module imports, so that GeoPackages get a spatial index.
with contextlib.suppress(UserError):
    load_fiona("kseg.predict")

from kseg.predict.predict_images import predict  # noqa: E402

__all__ = ["predict"]
