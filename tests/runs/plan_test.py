"""The number of steps of a run, from its epochs or given directly."""

import pytest

from kseg.runs.checkpoint_file import Position
from kseg.runs.plan import Plan


def test_a_number_of_steps_may_end_inside_an_epoch():
    assert Plan.of(7, epochs=3) == Plan(7, 21)
    by_steps = Plan.of(7, epochs=3, steps=16)
    assert (by_steps.total_steps, by_steps.epochs) == (16, 3)
    assert [by_steps.end_of(epoch) for epoch in range(3)] == [7, 14, 16]
    assert Plan.of(7, epochs=3, steps=14).epochs == 2


@pytest.mark.parametrize(
    ("position", "patience", "finished"),
    [
        (Position(step=6, epoch=3), 0, True),
        (Position(step=7, epoch=3), 0, True),
        (Position(step=5, epoch=2), 0, False),
        (Position(step=6, epoch=2, pending="{}"), 0, False),
        (Position(step=4, epoch=2, not_better=2), 2, True),
        (Position(step=4, epoch=2, not_better=2), 3, False),
        (Position(step=4, epoch=2, not_better=2, pending="{}"), 2, False),
        (Position(step=4, epoch=2, not_better=9), 0, False),
    ],
)
def test_a_run_is_finished_after_its_steps_or_early_and_its_last_validation(
    position, patience, finished
):
    assert Plan.of(2, epochs=3).is_finished(position, patience) is finished
