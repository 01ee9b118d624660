"""How many steps a run takes, and which of them an epoch has."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Attributes:
        epoch_steps: Steps of a whole epoch.
        total_steps: Steps of the run; the last epoch may be a part of one.
    """

    epoch_steps: int
    total_steps: int

    @classmethod
    def of(cls, epoch_steps: int, *, epochs: int, steps: int = 0) -> "Plan":
        """The plan of `epochs` epochs or, if it is not 0, of `steps` steps."""
        return cls(epoch_steps, steps or epochs * epoch_steps)

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return -(-self.total_steps // self.epoch_steps)

    def end_of(self, epoch: int) -> int:
        """Steps of the run that are done when an epoch (0-based) is over."""
        return min((epoch + 1) * self.epoch_steps, self.total_steps)
