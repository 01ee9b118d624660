"""Packaging of kseg. BUILD.md explains the version bounds and what each extra is for."""

import re
from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "tensorflow>=2.21,<2.22",
    "keras>=3.15.1,<3.16",
    "numpy>=2,<2.5",
    "absl-py",
    "pillow",
    "tensorboard>=2.20,<2.22",
    "tqdm",
]
EXTRAS = {
    # tensorflow-datasets 4.9.10 imports importlib_resources but requires it on Python 3.8 only.
    "tfds": ["tensorflow-datasets>=4.9.9,<5", "importlib_resources"],
    "keras-cv": ["keras-cv==0.9.0"],
    "hub": ["keras-hub>=0.32,<0.33"],
    "serving": ["tensorflow-serving-api>=2.21,<2.22"],
    "edge": ["ai-edge-litert>=2.1"],
    "onnx": ["tf2onnx>=1.17", "onnx", "onnxruntime>=1.20"],
    "openvino": ["openvino>=2026.0"],
    "jax": ["jax>=0.10"],
    "torch": ["torch==2.13.0"],
    "crf": ["pydensecrf2==1.1"],
    "sbd": ["scipy"],
    "coco": ["pycocotools"],
    "geo": ["rasterio>=1.4", "fiona>=1.10"],
    "figures": ["matplotlib>=3.10"],
    "test": [
        "pytest",
        "pytest-xdist>=3.7",
        "ruff",
        "setuptools>=77",
        "matplotlib>=3.10",
        "pycocotools",
        "rasterio>=1.4",
        "fiona>=1.10",
        "scipy",
        "scikit-learn",
    ],
}

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "kseg" / "_version.py").read_text())[1]

setup(
    name="kseg",
    version=VERSION,
    description="Context modules for semantic segmentation in TensorFlow 2 / Keras 3: "
    "KSAC, LKSPP, Vortex pooling, GCN and DFP beside ASPP, under one recipe.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["kseg", "kseg.*", "tfrecords_tools"]),
    package_data={"kseg": ["py.typed"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
