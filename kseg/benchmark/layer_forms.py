"""The parts of each context module that are compared, and the forms of each part."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kseg.benchmark import plain
from kseg.benchmark.device import POLICIES
from kseg.layers import GCN, KSAC, LKSPP, ConvStack, LargeKernelConv, VortexPooling
from kseg.layers.kernels.average_pool import average_pool
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from kseg.models import CONTEXTS
from kseg.runs.assembly import dtype_policy


@dataclasses.dataclass(frozen=True)
class Case:
    """A module at one size.

    Attributes:
        module: A name of `MODULES`.
        shape: (batch, height, width, channels) of the features.
        dilation_rates: Of KSAC; the other modules are measured with the rates of their papers.
        filters: Output channels.
        dtype: A name of `device.POLICIES`. Weights are float32 in every precision.
    """

    module: str
    shape: tuple[int, int, int, int]
    dilation_rates: tuple[int, ...] = ()
    filters: int = 256
    dtype: str = "float32"

    def __str__(self) -> str:
        batch, height, width, channels = self.shape
        rates = f", rates {self.dilation_rates}" if self.dilation_rates else ""
        return f"{self.module}: {height}x{width}x{channels} -> {self.filters}, batch {batch}{rates}"


class Form(NamedTuple):
    """One way to compute a part.

    Attributes:
        call: Function of the tensors and of `training` that returns a list of tensors.
        tensors: What the backward pass differentiates with respect to.
    """

    call: Callable[[list, bool], list]
    tensors: list


@dataclasses.dataclass(frozen=True)
class Part:
    """What is measured of a module.

    Attributes:
        name: "module" for the whole.
        forms: Name -> form.
        comparable: Whether all forms compute the same.
        base: Form whose time and results the others are compared with.
    """

    name: str
    forms: dict[str, Form]
    comparable: bool = True
    base: str = "fast"


def whole_module(case: Case, modules: dict[str, keras.Layer]) -> Part:
    """Returns the part that is a whole module, in the forms that `modules` holds."""
    features = _features(case)
    forms = {name: _form(module, features) for name, module in modules.items()}
    return Part("module", forms, comparable="plain" in modules)


class _Part(keras.Layer):
    """A function of features and of the variables of a layer, in the precision of the layer."""

    def __init__(self, function: Callable, **options):
        super().__init__(name="part", **options)
        self._function = function

    def call(self, features, training=None):
        return self._function(features, training=training)


def _form(layer: keras.Layer, features, part: Callable | None = None) -> Form:
    """The form that calls a layer, or a function of its variables, on features."""
    variables = layer.trainable_variables
    called = _Part(part, dtype=layer.dtype_policy) if part else layer

    def call(tensors, training):
        # On TensorFlow the tensors are the variables that the layer reads.
        if keras.config.backend() == "tensorflow":
            return [called(features, training=training)]
        features_, *values = tensors
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return [called(features_, training=training)]

    return Form(call, [features, *(variable.value for variable in variables)])


def _features(case: Case):
    random = np.random.default_rng(0)
    return ops.cast(ops.convert_to_tensor(random.normal(size=case.shape), "float32"), case.dtype)


def _build(
    case: Case, *, same_weights: bool = False, **modules: keras.Layer
) -> dict[str, keras.Layer]:
    for module in modules.values():
        module.build(case.shape)
    if same_weights:
        for module in modules.values():
            module.set_weights(modules["fast"].get_weights())
    return modules


def _ksac(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    convolutions = {
        "plain": plain.native_shared_atrous_conv,
        "keras": plain.plain_shared_atrous_conv,
        "fast": shared_atrous_conv,
    }
    rates = case.dilation_rates
    options = {"dilation_rates": rates, "dropout_rate": 0.0}
    modules = _build(
        case,
        same_weights=True,
        plain=plain.PlainKSAC(case.filters, convolve=convolutions["plain"], **options),
        keras=plain.PlainKSAC(case.filters, **options),
        fast=KSAC(case.filters, **options),
    )
    features = _features(case)
    kernel = ops.cast(ops.convert_to_tensor(modules["fast"].kernel), case.dtype)

    def form(convolve: Callable, rates: tuple[int, ...]) -> Form:
        return Form(lambda tensors, training: convolve(*tensors, rates), [features, kernel])

    shared = {name: form(convolve, rates) for name, convolve in convolutions.items()}
    single = {name: form(convolutions[name], (1,)) for name in ("plain", "keras")}
    parts = [
        Part("shared conv", shared),
        Part("one rate", {**single, "fast": shared["fast"]}, comparable=False),
    ]
    if len(rates) > 3:
        rates_of = {"3": tuple(sorted(rates)[1:4]), str(len(rates)): rates}
        forms = {name: form(shared_atrous_conv, some) for name, some in rates_of.items()}
        # New layers: training steps change the moving statistics of those compared below.
        layers = {
            name: KSAC(case.filters, **options | {"dilation_rates": some})
            for name, some in rates_of.items()
        }
        both = whole_module(case, _build(case, **layers))
        parts += [
            Part("more rates", forms, comparable=False, base="3"),
            dataclasses.replace(both, name="KSAC of more", base="3"),
        ]
    return parts, modules


def _vortex(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    modules = _build(
        case,
        same_weights=True,
        plain=plain.PlainVortexPooling(case.filters, dropout_rate=0.0),
        fast=VortexPooling(case.filters, dropout_rate=0.0),
    )
    pools = {"plain": plain.plain_average_pool, "fast": average_pool}
    return [Part("poolings", {name: averages(case, pool) for name, pool in pools.items()})], modules


def averages(case: Case, pool: Callable) -> Form:
    """Returns the averages of Vortex pooling, by a function of the features and of the window."""
    sizes = [rate for rate in VortexPooling().dilation_rates if rate > 1]
    return Form(
        lambda tensors, training: [pool(*tensors, size) for size in sizes], [_features(case)]
    )


def _lkspp(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    modules = _build(
        case,
        same_weights=True,
        plain=plain.PlainLKSPP(case.filters, dropout_rate=0.0),
        fast=LKSPP(case.filters, dropout_rate=0.0),
    )
    features = _features(case)
    largest = len(modules["fast"].large_kernels) - 1
    branch = functools.partial(modules["plain"].branch, largest)
    forms = {
        "plain": _form(modules["plain"].large_kernels[largest], features, branch),
        "fast": _form(modules["fast"].large_kernels[largest], features),
    }
    # The gradients jump at the ReLU; the outputs are compared in the whole module.
    return [Part("largest k", forms, comparable=False)], modules


def _gcn(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    rivals = {"conv": LargeKernelConv, "stack": ConvStack, "fast": GCN}
    layers = {name: layer(case.filters, kernel_size=7) for name, layer in rivals.items()}
    return [], _build(case, **layers)


def _only_form(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    return [], _build(case, fast=CONTEXTS[case.module](case.filters))


def parts_of(case: Case) -> tuple[list[Part], dict[str, keras.Layer]]:
    """Returns the parts of a module that are compared, and the whole module in its forms."""
    with dtype_policy(POLICIES[case.dtype]):
        return MODULES[case.module](case)


# Module -> function of a case, see `parts_of`.
MODULES = dict.fromkeys(CONTEXTS, _only_form) | {
    "ksac": _ksac,
    "vortex": _vortex,
    "lkspp": _lkspp,
    "gcn": _gcn,
}
