"""Checkpoints: complete or absent, hold everything that a run needs, and fit their model only."""

import errno
import io
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kseg.errors import UserError
from kseg.layers import ASPP, KSAC
from kseg.runs.checkpoint_file import CheckpointFile, Position
from kseg.runs.checkpoints import Checkpoints, metric_variables


def model_of(classes=2, filters=4, name="context"):
    keras.utils.set_random_seed(classes)
    images = keras.Input((9, 9, 3))
    x = ASPP(filters, dilation_rates=(1,), dropout_rate=0.5, name=name)(images)
    model = keras.Model(images, keras.layers.Conv2D(classes, 1, name="logits")(x))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def step(model, seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(4, 9, 9, 3)).astype("float32")
    model.fit(images, rng.integers(0, 2, (4, 9, 9)), batch_size=4, verbose=0, shuffle=False)


def values(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def test_a_restored_model_trains_exactly_like_the_saved_one(tmp_path):
    checkpoints, first, second = Checkpoints(tmp_path), model_of(), model_of()
    step(first, 1)
    position = Position(step=1, epoch=0, step_in_epoch=1, best_miou=0.25)
    checkpoints.save(first, position)
    restored, metrics = checkpoints.restore_newest(second)
    assert restored == position
    assert metrics["loss/count"] == first.metrics[0].count.numpy() > 0
    assert set(metrics) == set(metric_variables(first))
    # The next step depends on the momentum and on the state of the dropout seed.
    step(first, 2)
    step(second, 2)
    for saved, loaded in zip(values(first), values(second), strict=True):
        np.testing.assert_allclose(loaded, saved, rtol=1e-5, atol=1e-6)


def test_the_seed_states_are_part_of_a_checkpoint(tmp_path):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    step(model, 1)
    path = checkpoints.save(model, Position(step=1))
    stored = np.load(path)
    seeds = [key for key in stored.files if key.startswith("seeds/")]
    assert len(seeds) == 1
    fresh = model_of()
    (generator,) = [g for layer in fresh._flatten_layers() for g in layer._seed_generators]
    assert not np.array_equal(generator.state.numpy(), stored[seeds[0]])
    checkpoints.restore_newest(fresh)
    np.testing.assert_array_equal(generator.state.numpy(), stored[seeds[0]])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_damaged_checkpoint_of_a_later_step_is_removed_before_earlier_ones(tmp_path, capsys):
    checkpoints, model = Checkpoints(tmp_path, keep=1), model_of()
    checkpoints.save(model, Position(step=1))
    (tmp_path / "step-00000006.npz").write_bytes(b"half a file")
    assert checkpoints.restore_newest(model)[0].step == 1
    assert "step-00000006.npz is damaged" in capsys.readouterr().err
    checkpoints.save(model, Position(step=2))
    assert names(tmp_path) == ["step-00000002.npz"]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again_by_itself(tmp_path):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    (tmp_path / "step-00000006.npz").write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"{tmp_path}.*`--overwrite`"):
        checkpoints.restore_newest(model)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    checkpoints, model = Checkpoints(tmp_path, keep=1), model_of()
    checkpoints.save(model, Position(step=1))
    model.get_layer("logits").bias.assign([np.inf, 0])
    with pytest.raises(UserError, match=r"logits/bias .*step 2.*00000001\.npz"):
        checkpoints.save(model, Position(step=2), is_best=True)
    assert names(tmp_path) == ["step-00000001.npz"]


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path):
    checkpoints, model = Checkpoints(tmp_path, keep=2), model_of()
    for number in (1, 2, 3, 4):
        model.get_layer("logits").bias.assign([number, 0])
        checkpoints.save(model, Position(step=number), is_best=number == 2)
    assert names(tmp_path) == [
        "best.npz",
        "step-00000003.npz",
        "step-00000004.npz",
    ]
    for which, bias in (("best", 2), ("newest", 4), (str(checkpoints.paths()[0]), 3)):
        checkpoints.load_weights(model, which)
        assert model.get_layer("logits").bias.numpy()[0] == bias


def test_steps_of_more_digits_are_later(tmp_path):
    checkpoints, model = Checkpoints(tmp_path, keep=1), model_of()
    for step in (99_999_999, 100_000_000):
        checkpoints.save(model, Position(step=step))
    assert names(tmp_path) == ["step-100000000.npz"]
    (tmp_path / "step-99999999.npz").touch()
    assert checkpoints.read_position("newest")[0].step == 100_000_000


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_if_the_newest_checkpoint_is_damaged_the_one_before_is_restored(damage, tmp_path, capsys):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    checkpoints.save(model, Position(step=1))
    path = checkpoints.save(model, Position(step=2))
    contents = bytearray(path.read_bytes())
    # A bit of an array: zip files also hold bits that mean nothing.
    contents[contents.index(model.get_layer("logits").kernel.numpy().tobytes())] ^= 1
    path.write_bytes({"truncated": contents[:1000], "flipped": contents, "empty": b""}[damage])
    position, _ = checkpoints.restore_newest(model)
    assert position.step == 1
    assert f"{path} is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match="step-00000002.npz"):
        checkpoints.load_weights(model, "newest")


def test_a_failed_write_leaves_only_the_earlier_checkpoint(tmp_path, monkeypatch):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    checkpoints.save(model, Position(step=1))

    def full_disk(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(UserError, match="00000002.npz.*No space left on device.*00000001.npz"):
        checkpoints.save(model, Position(step=2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.npz"]


def test_a_checkpoint_of_another_model_is_an_error_that_names_the_differences(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model_of(classes=2), Position(step=1))
    with pytest.raises(UserError, match=r"00000001\.npz.*logits/kernel.*\(1, 1, 4, 2\)"):
        checkpoints.load_weights(model_of(classes=3))
    with pytest.raises(UserError, match=r"00000001\.npz.*other/.* \d+ more"):
        checkpoints.restore_newest(model_of(name="other"))


def test_a_folder_without_checkpoints_gives_a_new_position_or_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore_newest(model_of()) == (Position(), {})
    with pytest.raises(UserError, match=str(checkpoints.folder)):
        checkpoints.load_weights(model_of())
    with pytest.raises(UserError, match="lost.npz"):
        checkpoints.load_weights(model_of(), "lost.npz")


def model_with(layer_class, rates):
    images = keras.Input((9, 9, 3))
    model = keras.Model(images, layer_class(4, dilation_rates=rates, name="context")(images))
    model.compile(keras.optimizers.SGD(0.1, name="sgd"), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("layer_class", [ASPP, KSAC])
def test_a_checkpoint_fits_other_rates_but_not_another_number_of_rates(layer_class, tmp_path):
    checkpoints, trained = Checkpoints(tmp_path), model_with(layer_class, (1, 2))
    checkpoints.save(trained, Position(step=1))
    wider = model_with(layer_class, (2, 4))
    checkpoints.load_weights(wider, "newest")
    for saved, loaded in zip(trained.get_weights(), wider.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)
    for rates in ((1,), (1, 2, 4)):
        with pytest.raises(UserError, match=rf"{layer_class.__name__} has weights for each"):
            checkpoints.load_weights(model_with(layer_class, rates), "newest")


def test_a_file_that_is_no_checkpoint_is_called_so(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"weights\.npz") as caught:
        Checkpoints(tmp_path).load_weights(None, str(tmp_path / "weights.npz"))
    assert "pickle" not in str(caught.value)


def arrays_of(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def with_position(text):
    return lambda arrays: arrays | {"position": np.array(text)}


KERNEL = "weights/logits/kernel"
FAULTS = {
    "position that is no JSON": (with_position("step 2"), "Expecting value"),
    "position that is a list": (with_position("[2, 0, 0, 0.5]"), "JSON object"),
    "position without values": (with_position("{}"), "position.*best_miou.*step"),
    "position with an unknown key": (
        with_position('{"step": 2, "epoch": 0, "step_in_epoch": 0, "best_miou": 0, "rank": 1}'),
        r"\['rank'\]",
    ),
    "position with a text": (
        with_position('{"step": "2", "epoch": 0, "step_in_epoch": 0, "best_miou": 0}'),
        r"\['step'\]",
    ),
    "position with a negative number": (
        with_position('{"step": 2, "epoch": -1, "step_in_epoch": 0, "best_miou": 0}'),
        r"\['epoch'\]",
    ),
    "position that is an array": (
        lambda arrays: arrays | {"position": np.zeros((1000, 100))}, "position is not a text",
    ),
    "weight that is not a number": (
        lambda arrays: arrays | {KERNEL: arrays[KERNEL] * np.nan}, "logits/kernel is not finite",
    ),
    "array that no run writes": (
        lambda arrays: arrays | {"junk": np.zeros(10_000_000)}, "'junk'",
    ),
    "Python object": (
        lambda arrays: arrays | {"weights/object": np.array([{}], object)}, "Python objects",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_checkpoint_is_named_and_the_one_before_is_restored(fault, tmp_path, capsys):
    change, words = FAULTS[fault]
    checkpoints, model = Checkpoints(tmp_path), model_of()
    checkpoints.save(model, Position(step=1))
    path = checkpoints.save(model, Position(step=2))
    np.savez(path, **change(arrays_of(path)))
    with pytest.raises(UserError, match=rf"step-00000002\.npz is damaged: .*{words}"):
        checkpoints.load_weights(model, "newest")
    assert checkpoints.restore_newest(model)[0].step == 1
    assert f"{path} is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kernel: kernel.astype("float16"), "logits/kernel has type float16, but float32"),
        (lambda kernel: kernel.astype("int32"), "logits/kernel has type int32, but float32"),
        (
            lambda kernel: np.zeros((1, 1, 4, 9_000_000), "float32"),
            r"has shape \(1, 1, 4, 9000000\)",
        ),
    ],
)
def test_weights_of_another_type_or_size_are_refused_before_they_are_read(
    change, words, tmp_path, monkeypatch
):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    path = checkpoints.save(model, Position(step=2))
    arrays = arrays_of(path)
    np.savez(path, **arrays | {KERNEL: change(arrays[KERNEL])})
    monkeypatch.setattr(CheckpointFile, "read", None)  # Calling it would be another error.
    for read in (checkpoints.load_weights, checkpoints.restore_newest):
        with pytest.raises(UserError, match=rf"00000002\.npz is a checkpoint of another.*{words}"):
            read(model)


def test_a_damaged_header_is_not_taken_for_another_model(tmp_path, capsys):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    checkpoints.save(model, Position(step=1))
    path = checkpoints.save(model, Position(step=2))
    contents = path.read_bytes()
    # One bit turns the byte order of the first array around.
    place = contents.index(b"<f4")
    path.write_bytes(contents[:place] + b">f4" + contents[place + 3 :])
    assert checkpoints.restore_newest(model)[0].step == 1
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_checkpoint_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    path = checkpoints.save(model, Position(step=2))
    arrays = arrays_of(path) | {"weights/zeros": np.zeros(50_000_000, "uint8")}
    np.savez_compressed(path, **arrays)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match=r"00000002\.npz is damaged: its arrays are compressed"):
        checkpoints.load_weights(model)
    # A header that promises more than the file holds.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/zeros.npy", header.getvalue())
    with pytest.raises(UserError, match="weights/zeros does not have the size"):
        checkpoints.load_weights(model)


def test_a_checkpoint_of_another_process_is_not_removed(tmp_path):
    checkpoints, model = Checkpoints(tmp_path, keep=1), model_of()
    checkpoints.save(model, Position(step=1))
    foreign = tmp_path / "step-00000009.npz"
    foreign.write_bytes(b"written by another training")
    checkpoints.save(model, Position(step=2))
    assert names(tmp_path) == ["step-00000002.npz", foreign.name]


def test_the_best_checkpoint_on_other_data_is_kept_under_another_name(tmp_path):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    for step, val_data in ((1, ""), (2, "a"), (3, "a"), (4, "b")):
        position = Position(step=step, best_miou=0.5, val_data=val_data)
        checkpoints.save(model, position, is_best=True)
    assert CheckpointFile(checkpoints.best).position.step == 4
    # Of a checkpoint without a hash nothing is known, so that it is replaced.
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-of-other-data-00000003.npz"]


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    checkpoints, model = Checkpoints(tmp_path), model_of()
    for step in (1, 2):
        checkpoints.save(model, Position(step=step))

    def refuse(path, mode):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.restore_newest(model)
