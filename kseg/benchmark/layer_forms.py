"""The forms in which the comparison of layers measures each module, and the parts that it has."""

import dataclasses
from collections.abc import Callable

import numpy as np
from keras import ops

from kseg.benchmark import plain
from kseg.layers import GCN, KSAC, LKSPP, ConvStack, LargeKernelConv, VortexPooling
from kseg.layers.kernels.average_pool import average_pool
from kseg.layers.kernels.shared_atrous_conv import shared_atrous_conv
from kseg.models import CONTEXTS


@dataclasses.dataclass(frozen=True)
class Case:
    """A module at one size.

    Attributes:
        module: A name of `MODULES`.
        shape: (batch, height, width, channels) of the features.
        dilation_rates: Of KSAC; the other modules are measured as their papers have them.
        filters: Channels out.
    """

    module: str
    shape: tuple[int, int, int, int]
    dilation_rates: tuple[int, ...] = ()
    filters: int = 256

    def __str__(self) -> str:
        batch, height, width, channels = self.shape
        rates = f", rates {self.dilation_rates}" if self.dilation_rates else ""
        return f"{self.module}: {height}x{width}x{channels} -> {self.filters}, batch {batch}{rates}"


@dataclasses.dataclass(frozen=True)
class Part:
    """What is measured of a module, in its forms.

    Attributes:
        name: Of the part; "module" is the whole.
        calls: Form -> function of `training` that returns a list of tensors.
        tensors: Form -> what the backward pass differentiates for.
        comparable: Whether all forms compute the same.
        base: Form that the times of the others are over, and their results compared with.
    """

    name: str
    calls: dict[str, Callable]
    tensors: dict[str, list]
    comparable: bool = True
    base: str = "fast"


def _features(case: Case):
    random = np.random.default_rng(0)
    return ops.convert_to_tensor(random.normal(size=case.shape), "float32")


def _built(case: Case, modules: dict) -> dict:
    for module in modules.values():
        module.build(case.shape)
    return modules


def _alike(case: Case, modules: dict) -> dict:
    """The forms of a module, built and with the same weights."""
    first, *others = _built(case, modules).values()
    for module in others:
        module.set_weights(first.get_weights())
    return modules


def whole_module(case: Case, modules: dict) -> Part:
    """The part that is a whole module, in the forms that `modules` holds."""
    features = _features(case)
    return Part(
        "module",
        {
            form: lambda training, module=module: [module(features, training=training)]
            for form, module in modules.items()
        },
        {
            form: [features, *(variable.value for variable in module.trainable_variables)]
            for form, module in modules.items()
        },
        comparable="plain" in modules,
    )


def _ksac(case: Case) -> tuple[list[Part], dict]:
    forms = {
        "plain": plain.native_shared_atrous_conv,
        "keras": plain.plain_shared_atrous_conv,
        "fast": shared_atrous_conv,
    }
    options = {"dilation_rates": case.dilation_rates, "dropout_rate": 0.0}
    modules = {
        "plain": plain.PlainKSAC(case.filters, convolve=forms["plain"], **options),
        "keras": plain.PlainKSAC(case.filters, **options),
        "fast": KSAC(case.filters, **options),
    }
    _alike(case, modules)
    features, kernel = _features(case), modules["fast"].kernel

    def convolution(convolve, rates):
        return lambda training: convolve(features, ops.convert_to_tensor(kernel), rates)

    def part(name, calls, **options):
        return Part(name, calls, dict.fromkeys(calls, [features, kernel.value]), **options)

    rates = case.dilation_rates
    shared = {form: convolution(convolve, rates) for form, convolve in forms.items()}
    one = {form: convolution(forms[form], (1,)) for form in ("plain", "keras")}
    parts = [
        part("shared conv", shared),
        part("one rate", {**one, "fast": shared["fast"]}, comparable=False),
    ]
    if len(rates) > 3:
        fewer = tuple(sorted(rates)[1:4])
        of = {"3": fewer, str(len(rates)): rates}
        calls = {name: convolution(shared_atrous_conv, each) for name, each in of.items()}
        # Layers of their own: a step of training moves the statistics of those compared below.
        layers = {
            name: KSAC(case.filters, **options | {"dilation_rates": each})
            for name, each in of.items()
        }
        both = whole_module(case, _built(case, layers))
        parts += [
            part("more rates", calls, comparable=False, base="3"),
            dataclasses.replace(both, name="KSAC of more", base="3"),
        ]
    return parts, modules


def _vortex(case: Case) -> tuple[list[Part], dict]:
    modules = {
        "plain": plain.PlainVortexPooling(case.filters, dropout_rate=0.0),
        "fast": VortexPooling(case.filters, dropout_rate=0.0),
    }
    _alike(case, modules)
    features = _features(case)
    forms = {"plain": plain.plain_average_pool, "fast": average_pool}
    sizes = [rate for rate in modules["fast"].dilation_rates if rate > 1]
    pools = {
        form: lambda training, pool=pool: [pool(features, size) for size in sizes]
        for form, pool in forms.items()
    }
    return [Part("poolings", pools, dict.fromkeys(pools, [features]))], modules


def _lkspp(case: Case) -> tuple[list[Part], dict]:
    modules = {
        "plain": plain.PlainLKSPP(case.filters, dropout_rate=0.0),
        "fast": LKSPP(case.filters, dropout_rate=0.0),
    }
    _alike(case, modules)
    features = _features(case)
    largest = len(modules["fast"].large_kernels) - 1
    fast, textbook = modules["fast"].large_kernels[largest], modules["plain"]
    calls = {
        "plain": lambda training: [textbook.branch(largest, features, training)],
        "fast": lambda training: [fast(features, training=training)],
    }
    tensors = {
        "plain": [
            features,
            *(v.value for v in textbook.large_kernels[largest].trainable_variables),
        ],
        "fast": [features, *(v.value for v in fast.trainable_variables)],
    }
    # Its gradients jump at the ReLU too: outputs are compared in the module.
    return [Part("largest k", calls, tensors, comparable=False)], modules


def _gcn(case: Case) -> tuple[list[Part], dict]:
    rivals = {"conv": LargeKernelConv, "stack": ConvStack, "fast": GCN}
    modules = {form: layer(case.filters, kernel_size=7) for form, layer in rivals.items()}
    return [], _built(case, modules)


def _only_form(case: Case) -> tuple[list[Part], dict]:
    return [], _built(case, {"fast": CONTEXTS[case.module](case.filters)})


# Module -> function of a case that gives its parts, and the whole module in its forms.
MODULES = dict.fromkeys(CONTEXTS, _only_form) | {
    "ksac": _ksac,
    "vortex": _vortex,
    "lkspp": _lkspp,
    "gcn": _gcn,
}
