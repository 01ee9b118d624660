"""One training in several processes, on one machine or many, by Keras' JAX backend.

Keras 3 has no strategy for several machines on TensorFlow. On JAX every process runs the same
program, and an array is one array over the devices of all of them, so that loss and batch
statistics are those of the global batch. What processes must agree on goes through `Machines`.
"""

import dataclasses
import os

import keras
import numpy as np

from kseg.errors import UserError

# So long without a sign of life, and a process counts as dead. JAX' default is 100.
HEARTBEAT_SECONDS = int(os.environ.get("KSEG_HEARTBEAT_SECONDS", "20"))


@dataclasses.dataclass(frozen=True)
class Machines:
    """Which of how many processes this is.

    Every method is to be called by all processes, in the same order.

    Attributes:
        processes: How many train together.
        index: Number of this one, from 0. Process 0 alone writes.
    """

    processes: int = 1
    index: int = 0

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.index == 0

    def gather(self, values: np.ndarray) -> np.ndarray:
        """The arrays of all processes, of one shape and dtype, stacked along a new first axis."""
        if self.processes == 1:
            return values[np.newaxis]
        from jax.experimental import multihost_utils

        # Bytes, since JAX would cut 64 bits down to 32.
        sent = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        received = np.asarray(multihost_utils.process_allgather(sent))
        return np.frombuffer(received.tobytes(), values.dtype).reshape(-1, *values.shape)

    def add_up(self, counts: np.ndarray) -> np.ndarray:
        """The sum of the arrays of all processes."""
        return self.gather(counts).sum(axis=0)

    def greatest(self, value: int) -> int:
        """The greatest of the numbers of all processes."""
        return int(self.gather(np.array(value, np.int64)).max())

    def check_same(self, what: str, value: int) -> None:
        """Raises `UserError` unless all processes have the same number; waits for all."""
        values = self.gather(np.array(value, np.int64)).tolist()
        if len(set(values)) > 1:
            raise UserError(
                f"all processes must have the same {what}. By process: "
                f"{', '.join(map(str, values))}"
            )


ALONE = Machines()


def join(coordinator: str, num_processes: int, process_id: int) -> Machines:
    """Joins the processes of a training; before JAX computes anything.

    Args:
        coordinator: host:port of process 0, which listens there.
        num_processes: How many processes there are; 1: only this one; 0: coordinator and numbers
            are those that the cluster sets (Slurm, Open MPI, Kubernetes).
        process_id: Number of this process, from 0.

    Raises:
        UserError: The backend is not JAX, the flags do not fit, or the others did not come.
    """
    if num_processes == 1:
        return ALONE
    if keras.config.backend() != "jax":
        raise UserError(
            "several processes need the JAX backend: `KERAS_BACKEND=jax python -m kseg.train ...`. "
            f"Received: --num_processes={num_processes} on {keras.config.backend()}"
        )
    if num_processes and not (coordinator and 0 <= process_id < num_processes):
        raise UserError(
            "`--num_processes` needs `--coordinator=host:port` and a `--process_id` from 0 to "
            f"{num_processes - 1}. Received: {coordinator!r} and {process_id}"
        )
    import jax

    # What carries the sums between processes where there is no GPU.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM, which `callbacks.StopOnSignal` handles.
    jax.config.update("jax_enable_preemption_service", False)
    given = {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    try:
        jax.distributed.initialize(
            **(given if num_processes else {}), heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the processes of the training did not come together: {error}") from error
    return Machines(jax.process_count(), jax.process_index())
