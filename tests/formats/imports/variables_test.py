"""Opening checkpoints and frozen graphs of TensorFlow 1, and what cannot be opened."""

import numpy as np
import pytest
import tensorflow as tf

from kseg.errors import UserError
from kseg.formats.imports.variables import open_variables
from tests.import_checkpoint_test import write_checkpoint, write_with_saver

CLASSIFIER = "logits/semantic/weights"
RANDOM = np.random.default_rng(0)
VARIABLES = {
    CLASSIFIER: RANDOM.normal(size=(1, 1, 4, 3)).astype("float32"),
    "aspp0/BatchNorm/gamma": RANDOM.normal(size=4).astype("float32"),
}


def write_graph(path, constants):
    """Writes a graph of constants, each of which an operation reads, as `freeze_graph` does."""
    graph = tf.compat.v1.GraphDef()
    for name, value in constants.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        node.attr["dtype"].type = node.attr["value"].tensor.dtype
        graph.node.add(name=f"{name}/read", op="Identity", input=[name])
    path.write_bytes(graph.SerializeToString())
    return path


def assert_holds_variables(opened):
    assert opened.shapes == {name: value.shape for name, value in VARIABLES.items()}
    for name, value in VARIABLES.items():
        np.testing.assert_array_equal(opened.read(name), value)


def test_a_folder_as_the_official_tar_files_unpack(tmp_path):
    """Without the file `checkpoint`, and with a frozen graph beside the checkpoint."""
    write_checkpoint(tmp_path / "model.ckpt", VARIABLES)
    write_graph(tmp_path / "frozen_inference_graph.pb", {"other/weights": np.zeros(2, "float32")})
    assert not (tmp_path / "checkpoint").exists()
    opened = open_variables(tmp_path)
    assert_holds_variables(opened)
    assert opened.path == str(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "name", ["model.ckpt", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
)
def test_the_prefix_or_a_file_of_a_checkpoint(name, tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", VARIABLES)
    assert_holds_variables(open_variables(tmp_path / name))


def test_a_folder_in_which_a_training_wrote_several_checkpoints(tmp_path):
    write_with_saver(tmp_path / "model.ckpt-1", {"old/weights": np.zeros(2, "float32")})
    write_with_saver(tmp_path / "model.ckpt-2", VARIABLES)
    assert_holds_variables(open_variables(tmp_path))
    # A copy of the folder without this file no longer says which one is the newest.
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(UserError, match=r"`--checkpoint`.*model\.ckpt-1.*model\.ckpt-2"):
        open_variables(tmp_path)


def test_a_folder_whose_file_names_a_checkpoint_elsewhere(tmp_path):
    write_with_saver(tmp_path / "model.ckpt-1", VARIABLES)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/gone/model.ckpt-1"\n')
    assert_holds_variables(open_variables(tmp_path))


@pytest.mark.parametrize("scope", ["", "import/", "first/deeplab/"])
def test_a_frozen_graph_with_or_without_an_outer_scope(scope, tmp_path):
    constants = {scope + name: value for name, value in VARIABLES.items()}
    constants[f"{scope}ResizeBilinear/size"] = np.array([33, 33], "int32")
    path = write_graph(tmp_path / "frozen_inference_graph.pb", constants)
    assert_holds_variables(open_variables(path))
    assert_holds_variables(open_variables(tmp_path))


def zeros(scope):
    return {scope + name: 0 * value for name, value in VARIABLES.items()}


@pytest.mark.parametrize("copy_first", [True, False])
def test_a_copy_of_the_network_in_a_scope_is_not_read_in_its_place(copy_first, tmp_path):
    copy = zeros("ema/")
    constants = copy | VARIABLES if copy_first else VARIABLES | copy
    opened = open_variables(write_graph(tmp_path / "x.pb", constants))
    assert set(opened.shapes) == set(constants)
    for name, value in VARIABLES.items():
        np.testing.assert_array_equal(opened.read(name), value)


@pytest.mark.parametrize("others_first", [True, False])
def test_the_network_in_a_scope_comes_before_variables_outside_that_are_no_network(
    others_first, tmp_path
):
    inside = {f"import/{name}": value for name, value in VARIABLES.items()}
    others = zeros("")
    del others[CLASSIFIER]
    constants = others | inside if others_first else inside | others
    assert_holds_variables(open_variables(write_graph(tmp_path / "x.pb", constants)))


def test_of_two_networks_in_scopes_neither_is_chosen(tmp_path):
    constants = zeros("a/") | zeros("b/")
    opened = open_variables(write_graph(tmp_path / "x.pb", constants))
    assert set(opened.shapes) == set(constants)


@pytest.mark.parametrize(
    "constants",
    [
        {"Conv2D/filter": VARIABLES[CLASSIFIER]},
        {CLASSIFIER: np.zeros((1, 1, 4, 3), "uint8")},
        {},
    ],
)
def test_a_graph_whose_constants_have_lost_their_names_is_an_error(constants, tmp_path):
    path = write_graph(tmp_path / "x.pb", constants)
    with pytest.raises(UserError, match=r"`--checkpoint`.*x\.pb.*no constant has such a name"):
        open_variables(path)


def test_a_damaged_graph_is_an_error(tmp_path):
    path = write_graph(tmp_path / "x.pb", VARIABLES)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"`--checkpoint`.*x\.pb"):
        open_variables(path)
    with pytest.raises(UserError, match=r"`--checkpoint`.*gone\.pb"):
        open_variables(tmp_path / "gone.pb")


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    write_checkpoint(tmp_path / "model.ckpt", VARIABLES)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    contents = bytearray(data.read_bytes())
    contents[-1] ^= 255
    data.write_bytes(contents)
    opened = open_variables(tmp_path)
    with pytest.raises(UserError, match=r"model\.ckpt is damaged: .* cannot be read"):
        [opened.read(name) for name in VARIABLES]
    data.unlink()
    with pytest.raises(UserError, match=r"model\.ckpt"):
        open_variables(tmp_path).read(CLASSIFIER)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar"])
def test_an_archive_is_to_be_unpacked(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"unpack it first, `tar -xf .*{name}"):
        open_variables(tmp_path / name)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UserError, match="`--checkpoint` must hold"):
        open_variables(tmp_path)
