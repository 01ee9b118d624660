"""Weight files of torch: timm's Xception against its computation, and files that are refused."""

import functools
import json
import struct
import sys

import numpy as np
import pytest
import tensorflow as tf

from kseg import import_checkpoint as program
from kseg.backbones import BACKBONES
from kseg.backbones import xception as xception_module
from kseg.errors import UserError
from kseg.formats.imports.backbone_weights import import_backbone
from kseg.formats.imports.torch_files import open_torch_file
from kseg.formats.imports.torch_names import torch_name
from tests import program_calls
from tests.backbones.networks import assert_close, photograph
from tests.formats.imports.timm_xception import Timm, TimmShapes

BFLOAT16 = tf.bfloat16.as_numpy_dtype
DTYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
ARRAYS = {
    "stem.0.conv.weight": np.arange(24, dtype="float32").reshape(2, 3, 2, 2),
    "stem.0.bn.weight": np.array([1.5, -2.0], "float16"),
    "stem.0.bn.bias": np.array([0.5, 3.0], BFLOAT16),
    "stem.0.bn.num_batches_tracked": np.array(7),
    "blocks.0.stack.conv1.conv_dw.weight": np.arange(12, dtype="float64").reshape(3, 1, 2, 2),
}


def write_safetensors(path, arrays, **changes):
    """Writes the format as its specification describes it; `changes` go into the first entry."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in arrays.items():
        value = np.asarray(value)
        header[name] = {
            "dtype": DTYPES[value.dtype.name],
            "shape": value.shape,
            "data_offsets": [len(data), len(data) + value.nbytes],
        }
        data += value.tobytes()
    header[next(iter(arrays))].update(changes)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write_pickled(path, arrays, wrap=lambda state: state):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    tensors = {
        name: torch.tensor(np.asarray(value, "float64" if value.dtype == BFLOAT16 else None))
        for name, value in arrays.items()
    }
    torch.save(wrap(tensors), path)
    return path


def assert_holds_arrays(opened):
    """The values are float32 and the axes are those of Keras."""
    kernel, depthwise = "stem.0.conv.weight", "blocks.0.stack.conv1.conv_dw.weight"
    assert opened.shapes == {
        name: np.shape(value) for name, value in ARRAYS.items()
    } | {kernel: (2, 2, 3, 2), depthwise: (2, 2, 3, 1)}  # fmt: skip
    assert opened.read(kernel)[1, 0, 2, 1] == ARRAYS[kernel][1, 2, 1, 0]
    assert opened.read(depthwise)[1, 0, 2, 0] == ARRAYS[depthwise][2, 0, 1, 0]
    for name in ("stem.0.bn.weight", "stem.0.bn.bias"):
        assert opened.read(name).dtype == "float32"
        np.testing.assert_array_equal(opened.read(name), ARRAYS[name].astype("float32"))


def test_safetensors_of_every_float_dtype(tmp_path):
    assert_holds_arrays(open_torch_file(write_safetensors(tmp_path / "x.safetensors", ARRAYS)))


def parameters(state):
    """The tensors as `torch.nn.Parameter`s are: torch can differentiate with respect to them."""
    return {name: value.requires_grad_(value.is_floating_point()) for name, value in state.items()}


@pytest.mark.slow
@pytest.mark.slow  # `make test` does not install torch.
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"state_dict": state}, parameters]
)
def test_files_of_torch_save(suffix, wrap, tmp_path):
    assert_holds_arrays(open_torch_file(write_pickled(tmp_path / f"x{suffix}", ARRAYS, wrap)))


@pytest.fixture
def short_xception(monkeypatch):
    """Xceptions with one unit of the middle flow instead of eight or sixteen."""
    for name, (entry_flow, _) in xception_module.VARIANTS.items():
        monkeypatch.setitem(xception_module.VARIANTS, name, (entry_flow, 1))


@pytest.fixture(scope="module")
def xception_71(tmp_path_factory):
    """A file with the weights of timm's Xception-71, their names, an image, and the output."""
    timm, image = Timm(epsilon=1e-3), photograph(54, 65)
    expected = timm.xception(image, 71, middle_units=1)
    path = tmp_path_factory.mktemp("timm") / "x.safetensors"
    return write_safetensors(path, timm.variables), list(timm.variables), image, expected


def test_xception_of_timm(xception_71, short_xception, tmp_path, capsys):
    """At an even size as well."""
    path, names, image, expected = xception_71
    output = tmp_path / "x.weights.h5"
    flags = f"--checkpoint={path}", "--backbone=xception_71", f"--output={output}"
    assert program_calls.call_main(program, *flags) == 0
    features = BACKBONES["xception_71"](output_stride=32, weights=output)(image)
    assert_close(features["stride_32"], expected)
    printed = capsys.readouterr().out
    counters = sum(name.endswith(".num_batches_tracked") for name in names)
    assert printed.startswith(f"imported: {len(names) - counters - 2}\n")
    assert f"ignored (counters): {counters}\n" in printed
    assert "other variables): 2\n  head.fc.bias (1000,)\n  head.fc.weight (1000, 2048)" in printed
    assert "missing in the checkpoint: 0\nof another shape: 0\n" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "count"), [(41, 420), (65, 660), (71, 730)])
def test_all_weights_of_timm_have_a_place(layers, count):
    timm = TimmShapes(epsilon=1e-3)
    timm.xception(np.zeros((1, 1, 1, 3), "float32"), layers, 8 if layers == 41 else 16)
    backbone = f"xception_{layers}"
    network = BACKBONES[backbone].application()
    names = [torch_name(backbone, layer, v) for layer in network.layers for v in layer.weights]
    others = {name for name in timm.variables if name.endswith(".num_batches_tracked")}
    assert sorted(names) == sorted(
        set(timm.variables) - others - {"head.fc.weight", "head.fc.bias"}
    )
    assert (len(names), len(others)) == (count, count // 5)


def test_the_weights_of_another_network_are_reported(xception_71, short_xception):
    """The modules of Xception-65 at the same numbers have other depths, and there are fewer."""
    _, report = import_backbone(xception_71[0], "xception_65")
    assert not report.complete
    assert "blocks.2.stack.conv1.conv_pw.weight (1, 1, 256, 256)" in "\n".join(report.mismatched)
    ignored = "\n".join(report.ignored["other variables"])
    assert "blocks.7.stack.conv1.conv_dw.weight (3, 3, 1024, 1)" in ignored


@pytest.mark.parametrize(
    ("backbone", "arrays", "message"),
    [
        ("resnet50", ARRAYS, "`--backbone`.*xception_41.*for a weight file of torch.*resnet50"),
        ("xception_65", {"conv1.weight": np.zeros(2)}, "'xception_65'.* stem.*which holds conv1"),
    ],
)
def test_another_network_is_an_error(backbone, arrays, message, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError, match=message):
        import_backbone(path, backbone)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [2, 3, 2, 3]},
        {"data_offsets": [0, 1 << 40]},
        {"data_offsets": [-96, 0]},
        {"data_offsets": None},
        {"shape": None},
    ],
)
def test_safetensors_with_a_wrong_entry_are_an_error(changes, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", ARRAYS, **changes)
    with pytest.raises(UserError, match=r"`--checkpoint`.*x\.safetensors"):
        open_torch_file(path)


@pytest.mark.parametrize("size", [0, 7, 20, -1])
def test_truncated_safetensors_are_an_error(size, tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", ARRAYS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"`--checkpoint`.*x\.safetensors"):
        open_torch_file(path)


def test_safetensors_that_become_shorter_are_an_error(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(8, "float32")})
    opened = open_torch_file(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"x\.safetensors is damaged: a cannot be read"):
        opened.read("a")


def test_weights_that_are_not_floating_point_are_an_error(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(8, "int64")})
    with pytest.raises(UserError, match=r"^\S*x\.safetensors must hold .*F32.*a of I64$"):
        open_torch_file(path).read("a")


@pytest.mark.parametrize("name", ["gone.safetensors", "folder.safetensors"])
def test_a_file_that_cannot_be_opened_is_an_error(name, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UserError, match=f"`--checkpoint`.*{name}"):
        open_torch_file(tmp_path / name)


def test_torch_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r'x\.pth.*extra "torch"'):
        import_backbone(tmp_path / "x.pth", "xception_65")


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ([1.5], "holds a list"),
        ({"epoch": 3}, "no named tensors"),
        (functools.partial(print, "code"), "Weights only load failed"),  # It would run code.
        (b"no file of torch", ""),
    ],
)
def test_files_of_torch_save_that_are_refused(content, said, tmp_path):
    torch = pytest.importorskip("torch", reason="needs the extra `torch`")
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf"`--checkpoint`.*x\.pth: .*{said}"):
        open_torch_file(path)
