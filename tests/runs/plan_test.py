"""The number of steps of a run, from its epochs or given directly."""

from kseg.runs.plan import Plan


def test_a_number_of_steps_may_end_inside_an_epoch():
    assert Plan.of(7, epochs=3) == Plan(7, 21)
    by_steps = Plan.of(7, epochs=3, steps=16)
    assert (by_steps.total_steps, by_steps.epochs) == (16, 3)
    assert [by_steps.end_of(epoch) for epoch in range(3)] == [7, 14, 16]
    assert Plan.of(7, epochs=3, steps=14).epochs == 2
