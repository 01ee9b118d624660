"""The evaluations of a study: one process for each run, unless it was measured so already."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kseg import files
from kseg.data.manifests import read_manifest
from kseg.errors import UserError
from kseg.evaluate import find_checkpoint
from kseg.inference.report import check_classes
from kseg.runs.data_contents import Contents
from kseg.study.jobs import Job
from kseg.study.plan import StudyRun, evaluation_flags

PREDICTIONS = "predictions.npz"


class Evaluations:
    """Knows which evaluations are done, and how the others are made.

    After an evaluation, what was measured is noted in the folder `evaluations` of the study: the
    flags, the checkpoint, the data and the hash of the scores. An evaluation is done if all of this
    is still the same, and it is repeated if somebody has measured the run in another way.

    Args:
        output_dir: Folder of the study.
        data_dir: Folder of the records.
        split: The split.
        arguments: Further arguments of `kseg.evaluate`.

    Raises:
        UserError: The split is missing, or `--mean_over` holds a name that is not that of a class.
    """

    def __init__(self, output_dir: Path, data_dir: str, split: str, arguments: Sequence[str]):
        self._folder = output_dir / "evaluations"
        self._data_dir = data_dir
        self._split = split
        self._arguments = list(arguments)
        values = evaluation_flags(arguments)
        self._checkpoint = values.checkpoint
        manifest = read_manifest(data_dir, split)
        check_classes(manifest.label_set(), values.mean_over)
        self._data = Contents.of(manifest).sha256

    def is_done(self, run: StudyRun) -> bool:
        """Returns whether the run was measured with these flags, checkpoint and data."""
        try:
            noted = json.loads(self._note(run).read_text(encoding="utf-8"))
            return noted == self._present(run) and (run.folder.path / PREDICTIONS).is_file()
        except (OSError, ValueError, UserError):
            return False

    def job(self, run: StudyRun) -> Job:
        """Returns the process that measures the run."""
        arguments = (
            f"--model_dir={run.folder.path}",
            f"--data_dir={self._data_dir}",
            f"--split={self._split}",
            "--predictions",
            *self._arguments,
        )
        return Job(run.name, (sys.executable, "-m", "kseg.evaluate", *arguments), run.log)

    def note(self, run: StudyRun) -> None:
        """Notes that the run has been measured now."""
        files.write_text(self._note(run), json.dumps(self._present(run), indent=1) + "\n")

    def _note(self, run: StudyRun) -> Path:
        return self._folder / f"{run.stem}_seed_{run.seed}.json"

    def _present(self, run: StudyRun) -> dict:
        name, path, step = find_checkpoint(run.folder, self._checkpoint)
        written = path.stat()
        scores = run.folder.eval_file.read_bytes()
        return {
            "arguments": self._arguments,
            "split": self._split,
            "data": self._data,
            "checkpoint": [name, step, written.st_size, written.st_mtime_ns],
            "scores": hashlib.sha256(scores).hexdigest(),
        }
