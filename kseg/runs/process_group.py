"""One training in several processes, on one machine or many, with Keras' JAX backend.

Keras 3 has no strategy for several machines on TensorFlow. On JAX every process runs the same
program, and an array is one array over the devices of all processes, so that the loss and the batch
statistics are those of the global batch. What the processes must agree on passes through
`ProcessGroup`.
"""

import dataclasses
import os

import keras
import numpy as np

from kseg.errors import UserError

# Heartbeat timeout in seconds, after which a process counts as dead. JAX' default is 100.
HEARTBEAT_SECONDS = int(os.environ.get("KSEG_HEARTBEAT_SECONDS", "20"))


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and the number of this one.

    Every method must be called by all processes, in the same order.

    Attributes:
        size: Number of processes.
        index: Number of this process, from 0.
    """

    size: int = 1
    index: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.index == 0

    def all_gather(self, values: np.ndarray) -> np.ndarray:
        """Returns the arrays of all processes, of one shape and dtype, along a new first axis."""
        if self.size == 1:
            return values[np.newaxis]
        from jax.experimental import multihost_utils

        # As bytes, since JAX would convert 64-bit numbers to 32 bits.
        sent = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        received = np.asarray(multihost_utils.process_allgather(sent))
        return np.frombuffer(received.tobytes(), values.dtype).reshape(-1, *values.shape)

    def all_reduce_sum(self, counts: np.ndarray) -> np.ndarray:
        """Returns the sum of the arrays of all processes."""
        return self.all_gather(counts).sum(axis=0)

    def all_reduce_max(self, value: int) -> int:
        """Returns the greatest of the numbers of all processes."""
        return int(self.all_gather(np.array(value, np.int64)).max())

    def require_same(self, what: str, value: int) -> None:
        """Raises `UserError` unless all processes have the same number; waits for all of them."""
        values = self.all_gather(np.array(value, np.int64)).tolist()
        if len(set(values)) > 1:
            raise UserError(
                f"All processes must have the same {what}. Received, by process: "
                f"{', '.join(map(str, values))}"
            )


SINGLE_PROCESS = ProcessGroup()


def join(coordinator: str, num_processes: int, process_id: int) -> ProcessGroup:
    """Joins the processes of a training. Call it before JAX computes anything.

    Args:
        coordinator: host:port on which process 0 listens.
        num_processes: Number of processes. 1: only this one. 0: the coordinator and the numbers are
            those that the cluster sets (Slurm, Open MPI, Kubernetes).
        process_id: Number of this process, from 0.

    Raises:
        UserError: The backend is not JAX, the flags do not fit together, or the other processes
            cannot be reached.
    """
    if num_processes == 1:
        return SINGLE_PROCESS
    if keras.config.backend() != "jax":
        raise UserError(
            "`--num_processes` above 1 needs `KERAS_BACKEND=jax`. "
            f"Received: --num_processes={num_processes} on {keras.config.backend()}"
        )
    if num_processes and not (coordinator and 0 <= process_id < num_processes):
        raise UserError(
            "`--num_processes` needs `--coordinator=host:port` and a `--process_id` from 0 to "
            f"{num_processes - 1}. Received: {coordinator!r} and {process_id}"
        )
    import jax

    # Used for the sums between processes on machines without a GPU.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The preemption service would receive SIGTERM, which `callbacks.StopOnSignal` handles.
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
        hint = ""
        if not num_processes:
            hint = (
                ". `--num_processes=0` needs a cluster that JAX knows (Slurm, Open MPI, "
                "Kubernetes); elsewhere give `--num_processes`, `--coordinator` and `--process_id`"
            )
        raise UserError(
            f"The processes of the training could not be joined: {error}{hint}"
        ) from error
    return ProcessGroup(jax.process_count(), jax.process_index())
