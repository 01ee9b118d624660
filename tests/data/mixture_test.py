"""What an epoch reads: each example once, or by weight; a new order each time; nothing decoded."""

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
        shards.write(root / name, "train", [shards.numbered(one) for one in range(size)], shards=5)
        for name, size in SIZES.items()
    ]


def indices(data_dir, weights=None, epoch=0, shuffle_buffer=16, seed=0):
    found = mixture.open_mixture(data_dir, "train", weights)
    options = {"seed": seed, "epoch": epoch, "shuffle_buffer": shuffle_buffer}
    dataset = mixture.epoch_records(found, **options)
    return [int(index) for index, _ in dataset.as_numpy_iterator()]


def parts(found):
    """How many came from each set, whatever the pass."""
    few = sum(index % TOTAL >= SIZES["many"] for index in found)
    return len(found) - few, few


def test_by_size_each_record_comes_once_an_epoch_and_sets_are_mixed_throughout(folders):
    found = indices(folders)
    assert sorted(found) == list(range(TOTAL))
    places = [place for place, index in enumerate(found) if index >= SIZES["many"]]
    assert places[0] < TOTAL / 2 < places[-1]


def test_each_epoch_and_seed_has_an_order_of_its_own_and_always_the_same(folders):
    orders = [indices(folders), indices(folders, epoch=1), indices(folders, seed=1)]
    assert len({tuple(order) for order in orders}) == 3
    assert indices(folders) == orders[0]


def test_files_are_shuffled_before_records_are(folders):
    """Without room to shuffle records, only the order of the files is left."""
    firsts = {indices(folders[0], shuffle_buffer=1, epoch=epoch)[0] for epoch in range(12)}
    assert len(firsts) > 2
    assert firsts <= {0, 8, 16, 24, 32}, "the first record of a file"


def test_by_weight_sets_give_their_share_and_small_ones_repeat_under_new_indices(folders):
    found = indices(folders, weights=(1, 1))
    assert parts(found) == (23, 23)
    assert len(set(found)) == TOTAL, "an index that came twice would be augmented twice alike"
    few = Counter(index % TOTAL for index in found if index % TOTAL >= SIZES["many"])
    assert len(few) == 6 and sorted(few.values()) == [3, 4, 4, 4, 4, 4]


def test_weights_are_relative_and_shares_are_rounded_to_the_same_sum(folders):
    assert parts(indices(folders, weights=(3, 1))) == (35, 11)
    assert parts(indices(folders, weights=(1e-9, 1))) == (0, TOTAL)
    assert indices(folders, weights=(2, 2)) == indices(folders, weights=(0.5, 0.5))


def test_three_sets_are_mixed_by_size_or_by_weight(folders, tmp_path):
    third = shards.write(tmp_path / "third", "train", [shards.numbered(one) for one in range(14)])
    three, total, ends = [*folders, third], TOTAL + 14, [SIZES["many"], TOTAL]

    def counts(found):
        assert len(found) == len(set(found)) == total
        sets = np.searchsorted(ends, np.array(found) % total, side="right")
        return np.bincount(sets, minlength=3).tolist(), sets

    assert mixture.open_mixture(three, "train").examples == total
    by_size, sets = counts(indices(three))
    assert by_size == [40, 6, 14]
    for one in range(3):  # All through the epoch, not one after the other.
        places = np.flatnonzero(sets == one)
        assert places[0] < total / 2 < places[-1]
    found = indices(three, weights=(1, 1, 2))
    assert counts(found)[0] == [15, 15, 30]
    # The small ones go round: 6 give 15, 14 give 30.
    repeats = Counter(index % total for index in found if index % total >= SIZES["many"])
    assert set(repeats) == set(range(SIZES["many"], total))
    assert set(repeats.values()) == {2, 3}


def test_a_large_set_with_a_small_weight_is_seen_whole_in_time(folders):
    seen = set()
    for epoch in range(10):
        found = indices(folders, weights=(1, 1), epoch=epoch)
        seen |= {index for index in found if index < SIZES["many"]}
    assert len(seen) == SIZES["many"]


def test_one_folder_and_several_splits_or_several_folders_and_one_split(folders, tmp_path):
    for split in ("a", "b"):
        shards.write(tmp_path, split, [shards.numbered(1)] * 3)
    assert mixture.open_mixture(tmp_path, ["a", "b"]).examples == 6
    assert mixture.open_mixture(str(tmp_path), "a").examples == 3
    assert mixture.open_mixture(folders, ["train"]).examples == TOTAL
    same = mixture.open_mixture([folders[0]], ["train"])
    assert same == mixture.open_mixture(folders[0], "train")


def test_sets_of_other_classes_are_not_mixed(folders, tmp_path):
    roads = LabelSet(("background", "road"), ((0, 0, 0), (255, 255, 255)))
    image, label = shards.numbered(1)
    shards.write(tmp_path, "train", [(image, label)] * 3, label_set=roads)
    with pytest.raises(UserError, match="same classes.*aeroplane.*background, road"):
        mixture.open_mixture([folders[0], tmp_path], "train")


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, float("nan")), (1, float("inf"))])
def test_weights_that_do_not_fit_are_refused(folders, weights):
    with pytest.raises(UserError, match="`weights` must be 2 numbers above 0, one a split"):
        mixture.open_mixture(folders, "train", weights)


def test_lists_that_do_not_fit_are_refused(folders):
    with pytest.raises(UserError, match="Received: 2 folders and 3 splits"):
        mixture.open_mixture(folders, ["train"] * 3)
    with pytest.raises(UserError, match="Received: 1 folders and 0 splits|0 folders"):
        mixture.open_mixture(folders[0], [])


def test_shuffling_is_shared_out_among_the_sets(folders, monkeypatch):
    """So that the buffer bounds the memory, however many sets are mixed."""
    buffers = []
    monkeypatch.setattr(mixture, "_stream", lambda *args: buffers.append(args[-1]) or _nothing())
    indices(folders, shuffle_buffer=23)
    assert buffers == [20, 3] and np.sum(buffers) == 23


def _nothing():
    import tensorflow as tf

    return tf.data.Dataset.from_tensors((np.int64(0), b""))
