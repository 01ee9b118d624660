"""The number of steps of a run and of its epochs."""

import dataclasses

from kseg.runs.checkpoint_file import Position


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Attributes:
        epoch_steps: Steps of a whole epoch.
        total_steps: Steps of the run. The last epoch may be incomplete.
    """

    epoch_steps: int
    total_steps: int

    @classmethod
    def of(cls, epoch_steps: int, *, epochs: int, steps: int = 0) -> "Plan":
        """Returns the plan of `steps` steps or, if that is 0, of `epochs` epochs."""
        return cls(epoch_steps, steps or epochs * epoch_steps)

    @property
    def epochs(self) -> int:
        """Number of epochs, the incomplete one included."""
        return -(-self.total_steps // self.epoch_steps)

    def is_finished(self, position: Position, early_stop_after: int = 0) -> bool:
        """Returns whether a run at that position has nothing left to train or to validate.

        Args:
            position: The position of the newest checkpoint.
            early_stop_after: The flag of the run: number of validations without a better one after
                which it stops. Defaults to 0: never.
        """
        if position.pending:
            return False
        stopped_early = 0 < early_stop_after <= position.not_better
        return position.step >= self.total_steps or stopped_early

    def end_of(self, epoch: int) -> int:
        """Returns the steps of the run that are done at the end of an epoch (0-based)."""
        return min((epoch + 1) * self.epoch_steps, self.total_steps)

    def place_of(self, step: int) -> tuple[int, int]:
        """Returns the epoch (0-based) of the step after `step` steps, and the steps of it done."""
        return divmod(step, self.epoch_steps)
