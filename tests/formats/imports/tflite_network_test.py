"""The import of a real quantised DeepLabv3, against its interpreter and against plain `tf.nn`.

The network was trained on PASCAL VOC by others and may have seen the photographs used here. They
tell whether the imported network computes the same, not how well it segments.
"""

import json

import flatbuffers
import keras
import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from kseg import evaluate as evaluation
from kseg import import_checkpoint as program
from kseg.benchmark import exported, runner
from kseg.data.datasets import VOC
from kseg.data.images import read_image
from kseg.errors import UserError
from kseg.formats import litert
from kseg.formats.imports import norm_statistics
from kseg.formats.imports.official_names import official_name
from kseg.formats.imports.tflite_network import _targets, read_tflite_network
from kseg.inference.config import InferenceConfig
from kseg.runs.folder import RunFolder
from tests import program_calls
from tests.formats.imports.float_network import FloatNetwork, interpreter
from tests.formats.networks import tiny_network
from tfrecords_tools import build_voc

NETWORK = "weights/deeplabv3_mnv2_pascal_quant.tflite"
SIDE = 513
HEAD = {
    "context/image_pooling/convolution": "image_pooling",
    "context/pointwise/convolution": "aspp0",
    "context/project/convolution": "concat_projection",
    "logits": "logits/semantic",
}


@pytest.fixture(scope="session")
def path(real_data):
    found = real_data / NETWORK
    if not found.is_file():
        pytest.skip(f"no {NETWORK} in {real_data}")
    return found


@pytest.fixture(scope="session")
def voc(real_data):
    return real_data / "VOCdevkit" / "VOC2012"


def files(voc, split):
    names = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
    return [voc / "JPEGImages" / f"{name}.jpg" for name in names]


def padded(photograph, level=127.5):
    """A photograph as the networks see it, padded to the size of the file."""
    return norm_statistics.fit(read_image(photograph), (SIDE, SIDE), (level,) * 3)[np.newaxis]


@pytest.fixture(scope="module")
def imported(path, voc):
    """The network with statistics of as many photographs as are needed."""
    photographs = files(voc, "train")[: norm_statistics.ENOUGH_IMAGES]
    return read_tflite_network(path, map(read_image, photographs))


@pytest.fixture(scope="module")
def constants(path):
    """The de-quantised kernels and biases of the file by name, as the interpreter reports them."""
    details = interpreter(path).get_tensor_details()
    values = FloatNetwork(path).constants
    named = {detail["name"].split(";")[0]: detail["index"] for detail in details}
    return {name: values[index] for name, index in named.items() if index in values}


def test_all_kernels_are_those_of_the_file_one_to_one(imported, constants, path):
    """The names in the file, which the import does not read, say which kernel is which."""
    kernels = {name: value for name, value in constants.items() if value.ndim == 4}
    lines = [line.strip().split(" ") for line in imported.report.splitlines() if " -> " in line]
    assert len(lines) == len(kernels) == len({line[0] for line in lines}) == 55
    variables = {variable.path: variable for variable in imported.model.variables}
    backbone = imported.model.get_layer("mobilenet_v2")
    for name, _, target, *_ in lines:
        layer = target.removesuffix("/kernel")
        if layer in HEAD:
            scope = HEAD[layer]
        else:
            variable = backbone.get_layer(layer).kernel
            scope = official_name("mobilenet_v2", backbone.get_layer(layer), variable)
            scope = scope.rsplit("/", 1)[0]
        assert name.startswith(f"{scope}/"), (name, layer)
        expected = kernels[name].transpose(1, 2, 3, 0)
        if layer == "Conv1":
            expected = expected * np.float32(127.5 / 128)
        found = np.asarray(variables[target])
        factors = np.ones(1, "float32")
        if layer != "logits":  # Which has no normalisation that would undo a factor.
            axes = (0, 1, 3) if expected.shape[-1] == 1 else (0, 1, 2)
            norms = np.sqrt(np.square(found, dtype="float64").sum(axes, keepdims=True))
            former = np.sqrt(np.square(expected, dtype="float64").sum(axes, keepdims=True))
            assert np.all((former == 0) | ((norms >= 1) & (norms <= 2)))
            factors = np.where(former > 0, norms / np.maximum(former, 1e-30), 1)
            assert np.all(np.abs(np.log2(factors) % 1 - 0.5) > 0.4999)  # Powers of two.
            factors = (2 ** np.round(np.log2(factors))).astype("float32")
        np.testing.assert_array_equal(found, expected * factors)
    trained = [variable for variable in imported.model.variables if "kernel" in variable.path]
    assert len(trained) == 55
    assert imported.complete and imported.source == path.name
    assert imported.label_set == VOC and imported.model.class_names == VOC.names


def test_logits_are_those_of_the_graph_in_double_precision(imported, path, voc):
    """The graph with the border of kseg, whose zeros stand for the level 127.5 and not 128.

    The graph itself is off by 2e-4 in single precision, on these logits of up to 21.
    """
    images = padded(files(voc, "val")[0])
    expected = FloatNetwork(path, frame=127.5, dtype="float64").logits(images)
    logits = np.asarray(imported.model(images, training=False))
    assert 15 < np.abs(expected).max() < 30
    assert np.abs(logits - expected).max() < 2e-5 * np.abs(expected).max()


def test_the_level_of_the_border_hardly_changes_the_classes(imported, path, voc):
    images = padded(files(voc, "val")[0])
    expected = FloatNetwork(path).logits(images)
    logits = np.asarray(imported.model(images, training=False))
    assert 0.01 < np.abs(logits - expected).max() < 0.03 * np.abs(expected).max()
    assert np.mean(logits.argmax(-1) == expected.argmax(-1)) > 0.999


# Changes of the real file. The classes of the schema read and write its operations.


def changed(path, change, tmp_path):
    """Writes a changed copy of a file; `change` gets its operations and the whole file."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    change(model.subgraphs[0].operators, model)
    builder = flatbuffers.Builder(1 << 22)
    builder.Finish(model.Pack(builder), b"TFL3")
    copy = tmp_path / "changed.tflite"
    copy.write_bytes(bytes(builder.Output()))
    return copy


def operation_codes(model):
    return [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]


def of_kind(operations, model, kind):
    codes = operation_codes(model)
    return [n for n, found in enumerate(operations) if codes[found.opcodeIndex] == kind]


def test_names_and_the_order_of_branches_play_no_role(path, imported, tmp_path):
    def scramble(operations, model):
        for number, tensor in enumerate(model.subgraphs[0].tensors):
            tensor.name = f"t{number * 7919 % 997}"
        (pool,) = of_kind(operations, model, schema.BuiltinOperator.AVERAGE_POOL_2D)
        pointwise, pooled = operations[pool + 1 : pool + 3]
        assert pooled.inputs[0] == operations[pool].outputs[0] != pointwise.inputs[0]
        operations[pool + 1 : pool + 3] = [pooled, pointwise]

    image = np.random.default_rng(0).integers(0, 256, (33, 33, 3), np.uint8)
    other = read_tflite_network(changed(path, scramble, tmp_path), [image])
    for mine, expected in zip(other.model.variables, imported.model.variables, strict=True):
        if "kernel" in mine.path:
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(expected))
    assert "warning: at least 16 images" in other.report
    assert "warning" not in imported.report


def dilate(operations, model):
    (*_, last) = of_kind(operations, model, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    operations[last].builtinOptions.dilationHFactor = 4
    operations[last].builtinOptions.dilationWFactor = 4


def without_relu6(operations, model):
    operations[0].builtinOptions.fusedActivationFunction = 1


def swap_concatenation(operations, model):
    (concat,) = of_kind(operations, model, schema.BuiltinOperator.CONCATENATION)
    operations[concat].inputs = operations[concat].inputs[::-1]


def drop_addition(operations, model):
    addition = of_kind(operations, model, schema.BuiltinOperator.ADD)[3]
    first, (output,) = operations[addition].inputs[0], operations[addition].outputs
    for operation in operations:
        operation.inputs = [first if tensor == output else tensor for tensor in operation.inputs]
    del operations[addition]


def half_pixel(operations, model):
    (*_, last) = of_kind(operations, model, schema.BuiltinOperator.RESIZE_BILINEAR)
    operations[last].builtinOptions.alignCorners = False


def without_padding(operations, model):
    operations[1].builtinOptions.padding = 1


def stop_at_the_pool(operations, model):
    (pool,) = of_kind(operations, model, schema.BuiltinOperator.AVERAGE_POOL_2D)
    model.subgraphs[0].outputs = operations[pool].outputs


def negative_scale(operations, model):
    kernel = model.subgraphs[0].tensors[operations[0].inputs[1]]
    kernel.quantization.scale = [-1.0]


def without_stride(operations, model):
    operations[0].builtinOptions.strideH = operations[0].builtinOptions.strideW = 1
    operations[4].builtinOptions.strideH = operations[4].builtinOptions.strideW = 1


def with_two_networks(operations, model):
    model.subgraphs *= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dilate, "Its counterpart of block_16_depthwise must be.*dilation rate 2.*dilation rate 4"),
        (without_relu6, "Its counterpart of Conv1 must be: .*relu6.*Received: .*relu,"),
        (swap_concatenation, "context/project/convolution.*concat.*Received: none"),
        (drop_addition, r"_expand must be: .*input sum\(.*Received: none"),
        (half_pixel, "align_corners"),
        (without_padding, "not padded"),
        (stop_at_the_pool, "Its result"),
        (negative_scale, "damaged.*-1.0"),
        (without_stride, "of stride 8, 16 or 32. Received: 4"),
        (with_two_networks, "damaged"),
    ],
)
def test_a_network_of_another_structure_is_refused(path, tmp_path, change, message):
    copy = changed(path, change, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        read_tflite_network(copy, [])
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def test_another_number_of_classes_is_refused(path):
    with pytest.raises(UserError, match="must name 21 classes.*cityscapes, which has 19"):
        read_tflite_network(path, [], classes="cityscapes")


def test_float_networks_damaged_and_missing_files_are_refused(tmp_path):
    file = tmp_path / "x.tflite"
    content = litert.convert(tiny_network(), (33, 33))
    for written, message in (
        (content, "must be a quantised DeepLabv3 on MobileNetV2|must be a quantised network"),
        (content[: len(content) // 2], "damaged"),
        (content[:6], "must be a .tflite file"),
        (b"\x89PNG" + content, "must be a .tflite file"),
    ):
        file.write_bytes(written)
        with pytest.raises(UserError, match=message) as caught:
            read_tflite_network(file, [])
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="`--checkpoint` cannot be read: No such file"):
        read_tflite_network(tmp_path / "gone.tflite", [])


# The whole way, from the program to every exported form.


@pytest.fixture(scope="module")
def run(path, voc, tmp_path_factory):
    """The folder that the program writes, with statistics of VOCdevkit's train, 40 photographs."""
    folder = tmp_path_factory.mktemp("imported")
    listed = folder / "photographs.txt"
    listed.write_text("\n".join(map(str, files(voc, "train"))))
    program_calls.call_main(
        program, f"--checkpoint={path}", f"--model_dir={folder / 'run'}",
        f"--statistics_images={listed}",
    )  # fmt: skip
    return RunFolder(folder / "run")


@pytest.fixture(scope="module")
def records(voc, tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc") / "records"
    build_voc.build(voc, folder, splits=["train", "val"])
    return str(folder)


def accuracy(model, batch, labels, training):
    keras.utils.set_random_seed(0)  # For the dropout of the context module.
    classes = np.asarray(model(batch, training=training)).argmax(-1)
    right = total = 0
    for predicted, label in zip(classes, labels, strict=True):
        counted = label != VOC.ignore_label
        right += (predicted[: label.shape[0], : label.shape[1]] == label)[counted].sum()
        total += counted.sum()
    return right / total


def set_as_in_the_file(layer, norm):
    """Gives a convolution the kernel of the file, and lets its normalisation only add the bias."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    undone = np.asarray(norm.gamma) / deviation
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    layer.kernel.assign(layer.kernel * (undone[:, np.newaxis] if is_depthwise else undone))
    norm_statistics.set_as_bias(norm, np.asarray(norm.beta) - np.asarray(norm.moving_mean) * undone)


@pytest.mark.slow
def test_batch_statistics_work_as_the_measured_ones_do(run, voc):
    """On eight photographs that are not among those on which the statistics were measured.

    The right norms lose a few per cent, since eight photographs are not forty. With norms that only
    add the bias, another two fifths of the pixels are wrong.
    """
    model = run.load_model()
    photographs = files(voc, "val")[:8]
    batch = np.concatenate([padded(photograph) for photograph in photographs])
    masks = [voc / "SegmentationClass" / f"{photograph.stem}.png" for photograph in photographs]
    labels = [np.asarray(Image.open(mask)) for mask in masks]
    found = {training: accuracy(model, batch, labels, training) for training in (0, 1)}
    assert found[False] > 0.95 and found[True] > 0.90, found
    for target in _targets(model)[:-1]:  # The last one has no normalisation.
        set_as_in_the_file(target.layer, target.norm)
    only_bias = {training: accuracy(model, batch, labels, training) for training in (0, 1)}
    print(f"\nright with own and with batch statistics: {found}; norms as biases: {only_bias}")
    assert abs(only_bias[False] - found[False]) < 1e-4
    assert only_bias[True] < 0.75


@pytest.mark.slow
def test_photographs_get_the_classes_of_the_interpreter(run, path, voc, records):
    predictions, labels = [], []

    def keep(image):
        predictions.append(image.prediction)
        labels.append(image.labels)

    scores = {}
    for size in ((), (SIDE, SIDE)):
        predictions.clear()
        config = InferenceConfig(eval_size=size)
        scores[size] = evaluation.evaluate(run, records, "val", config=config, on_image=keep)
    runtime = interpreter(path)
    (source,), (result,) = runtime.get_input_details(), runtime.get_output_details()
    equal = pixels = 0
    for photograph, predicted in zip(files(voc, "val"), predictions, strict=True):
        runtime.set_tensor(source["index"], np.uint8(padded(photograph, 128)))
        runtime.invoke()
        height, width = predicted.shape
        classes = runtime.get_tensor(result["index"])[0, :height, :width]
        equal += (classes == predicted).sum()
        pixels += predicted.size
    print(f"\nas the interpreter: {equal / pixels:.4f} of the pixels; scores by size:")
    print({size: (found.pixel_accuracy, found.miou) for size, found in scores.items()})
    assert len(predictions) == 40
    assert equal / pixels > 0.99
    # The interpreter's are .9616 and .8809, see tests/inference/reference_test.py.
    assert abs(scores[SIDE, SIDE].pixel_accuracy - 0.9616) < 0.002
    assert abs(scores[SIDE, SIDE].miou - 0.8809) < 0.005
    assert scores[()].miou > 0.88


@pytest.mark.slow
def test_every_exported_form_reaches_its_miou(run, records, tmp_path):
    """SavedModel, LiteRT and ONNX on the 40 photographs, padded to the size of the file."""
    pytest.importorskip("ai_edge_litert", reason="needs the extra edge")
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("openvino", reason="needs the extra openvino")
    file = tmp_path / "rows.json"
    rows = runner.run(
        exported.BENCHMARK,
        repetitions=1,
        model_dir=str(run.path),
        data_dir=records,
        results=str(file),
    )
    written = {row["form"]: row["miou"] for row in json.loads(file.read_text())}
    assert written == {row.form: row.miou for row in rows}
    assert all(min(row.ms) > 0 for row in rows)
    miou = {row.form: row.miou for row in rows}
    print(f"\n{miou}")
    truth = miou.pop("SavedModel")
    assert abs(truth - 0.8829) < 0.002
    assert abs(miou.pop("LiteRT int8") - truth) < 0.02
    floats = {"LiteRT float32", "LiteRT float16", "ONNX", "ONNX by OpenVINO"}
    assert set(miou) == {exported.PLAIN, *floats}
    assert all(abs(score - truth) < 0.001 for score in miou.values()), (truth, miou)


@pytest.mark.slow
def test_an_image_larger_than_the_shape_of_a_benchmark_is_refused(run, records):
    with pytest.raises(UserError, match="--shape.*'val'"):
        runner.run(
            exported.BENCHMARK,
            repetitions=1,
            shape=(1, 33, 33),
            model_dir=str(run.path),
            data_dir=records,
        )
