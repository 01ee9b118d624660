"""Order of the records of an epoch, of one split and of mixtures by size and by weight."""

from collections import Counter

import numpy as np
import pytest

from kseg.data import mixture
from kseg.data.datasets import LabelSet
from kseg.errors import UserError
from tests.data import shards

SIZES = {"many": 40, "few": 6}
TOTAL = sum(SIZES.values())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixture")
    return [
        shards.write(
            root / name, "train", [shards.numbered(number) for number in range(size)], shards=5
        )
        for name, size in SIZES.items()
    ]


def indices(data_dir, weights=None, epoch=0, shuffle_buffer=16, seed=0):
    opened = mixture.open_mixture(data_dir, "train", weights)
    options = {"seed": seed, "epoch": epoch, "shuffle_buffer": shuffle_buffer}
    dataset = mixture.epoch_records(opened, **options)
    return [int(index) for index, _ in dataset.as_numpy_iterator()]


def count_by_split(found):
    """Returns how many records come from each split, over all passes."""
    few = sum(index % TOTAL >= SIZES["many"] for index in found)
    return len(found) - few, few


def test_without_weights_each_record_occurs_once_and_splits_are_mixed(folders):
    found = indices(folders)
    assert sorted(found) == list(range(TOTAL))
    positions = [position for position, index in enumerate(found) if index >= SIZES["many"]]
    assert positions[0] < TOTAL / 2 < positions[-1]


def test_the_order_is_determined_by_seed_and_epoch(folders):
    orders = [indices(folders), indices(folders, epoch=1), indices(folders, seed=1)]
    assert len({tuple(order) for order in orders}) == 3
    assert indices(folders) == orders[0]


def test_shards_are_shuffled_as_well_as_records(folders):
    """With a shuffle buffer of one record, only the shards are shuffled."""
    firsts = {indices(folders[0], shuffle_buffer=1, epoch=epoch)[0] for epoch in range(12)}
    assert len(firsts) > 2
    assert firsts <= {0, 8, 16, 24, 32}, "Each epoch must start with the first record of a shard."


def test_with_weights_a_small_split_repeats_its_records_under_new_indices(folders):
    found = indices(folders, weights=(1, 1))
    assert count_by_split(found) == (23, 23)
    assert len(set(found)) == TOTAL, "Repeated indices would get the same augmentation."
    few = Counter(index % TOTAL for index in found if index % TOTAL >= SIZES["many"])
    assert len(few) == 6 and sorted(few.values()) == [3, 4, 4, 4, 4, 4]


def test_weights_are_relative_and_rounding_keeps_the_size_of_an_epoch(folders):
    assert count_by_split(indices(folders, weights=(3, 1))) == (35, 11)
    assert count_by_split(indices(folders, weights=(1e-9, 1))) == (0, TOTAL)
    assert indices(folders, weights=(2, 2)) == indices(folders, weights=(0.5, 0.5))


def test_three_splits_are_mixed_by_size_or_by_weight(folders, tmp_path):
    third = shards.write(
        tmp_path / "third", "train", [shards.numbered(number) for number in range(14)]
    )
    three, total, ends = [*folders, third], TOTAL + 14, [SIZES["many"], TOTAL]

    def counts(found):
        assert len(found) == len(set(found)) == total
        splits = np.searchsorted(ends, np.array(found) % total, side="right")
        return np.bincount(splits, minlength=3).tolist(), splits

    assert mixture.open_mixture(three, "train").examples == total
    by_size, splits = counts(indices(three))
    assert by_size == [40, 6, 14]
    for number in range(3):  # Throughout the epoch, not one split after another.
        positions = np.flatnonzero(splits == number)
        assert positions[0] < total / 2 < positions[-1]
    found = indices(three, weights=(1, 1, 2))
    assert counts(found)[0] == [15, 15, 30]
    # The small splits repeat: 6 records give 15 examples, and 14 give 30.
    repeats = Counter(index % total for index in found if index % total >= SIZES["many"])
    assert set(repeats) == set(range(SIZES["many"], total))
    assert set(repeats.values()) == {2, 3}


def test_a_large_split_with_a_small_weight_is_read_completely_over_several_epochs(folders):
    seen = set()
    for epoch in range(10):
        found = indices(folders, weights=(1, 1), epoch=epoch)
        seen |= {index for index in found if index < SIZES["many"]}
    assert len(seen) == SIZES["many"]


def test_a_single_folder_or_a_single_split_is_used_for_all(folders, tmp_path):
    for split in ("a", "b"):
        shards.write(tmp_path, split, [shards.numbered(1)] * 3)
    assert mixture.open_mixture(tmp_path, ["a", "b"]).examples == 6
    assert mixture.open_mixture(str(tmp_path), "a").examples == 3
    assert mixture.open_mixture(folders, ["train"]).examples == TOTAL
    same = mixture.open_mixture([folders[0]], ["train"])
    assert same == mixture.open_mixture(folders[0], "train")


def test_splits_with_different_classes_are_rejected(folders, tmp_path):
    roads = LabelSet(("background", "road"), ((0, 0, 0), (255, 255, 255)))
    image, label = shards.numbered(1)
    shards.write(tmp_path, "train", [(image, label)] * 3, label_set=roads)
    with pytest.raises(UserError, match="classes.*aeroplane.*background, road"):
        mixture.open_mixture([folders[0], tmp_path], "train")


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, float("nan")), (1, float("inf"))])
def test_invalid_weights_are_rejected(folders, weights):
    with pytest.raises(UserError, match="`weights`"):
        mixture.open_mixture(folders, "train", weights)


def test_folders_and_splits_must_have_the_same_length(folders):
    with pytest.raises(UserError, match="`data_dir` and `split`.* 2 .* 3"):
        mixture.open_mixture(folders, ["train"] * 3)
    with pytest.raises(UserError, match="`data_dir` and `split`.* 0"):
        mixture.open_mixture(folders[0], [])


def test_the_shuffle_buffer_is_divided_among_the_splits(folders, monkeypatch):
    """This bounds the memory, however many splits are mixed."""
    buffers = []

    def record_buffer_size(dataset, buffer_size, seed):
        buffers.append(buffer_size)
        return dataset

    monkeypatch.setattr(mixture, "_shuffle", record_buffer_size)
    indices(folders, shuffle_buffer=23)
    assert buffers == [20, 3]
