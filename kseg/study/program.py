"""The course of a study: training, evaluation, page."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from kseg import files
from kseg.study import costs, page, pictures
from kseg.study.evaluations import Evaluations
from kseg.study.jobs import Job, Jobs, Result
from kseg.study.plan import StudyRun
from kseg.study.results import Module, curve, differences, read_modules
from kseg.visualization import curves
from kseg.visualization.image_files import save_picture
from kseg.visualization.progress import progress_bar


class Study:
    """A study.

    Args:
        runs: Its runs.
        output_dir: Its folder.
        data_dir: Folder of the records.
        split: The split that is measured.
        arguments: Further arguments of `kseg.evaluate`.
        children: What runs the child processes.

    Raises:
        UserError: The split is missing.
    """

    def __init__(
        self,
        runs: Sequence[StudyRun],
        output_dir: Path,
        data_dir: str,
        split: str,
        arguments: Sequence[str],
        children: Jobs,
    ):
        self._runs = runs
        self._output_dir = output_dir
        self._data_dir = data_dir
        self._split = split
        self._children = children
        self._evaluations = Evaluations(output_dir, data_dir, split, arguments)
        self._ended: set[str] = set()
        self._failures: dict[str, str] = {}

    def run(self, command: str) -> bool:
        """Trains, evaluates and writes the page, until the end or until a signal.

        Args:
            command: The command of the study, for the page.

        Returns:
            Whether all runs have results. After a signal, which `Jobs.received` tells, False.
        """
        self._train()
        if self._children.received:
            return False
        self._evaluate()
        if self._children.received:
            return False
        measured = [run for run in self._runs if run.name not in self._failures]
        if measured:
            self._write(measured, command)
        for failure in self._failures.values():
            print(f"error: {failure}", file=sys.stderr)
        return not self._failures

    def _train(self) -> None:
        unfinished = [run for run in self._runs if not run.is_finished()]
        self._ended = {run.name for run in self._runs if run not in unfinished}
        skipped = len(self._runs) - len(unfinished)
        print(f"{len(self._runs)} runs, {skipped} of them finished", flush=True)
        if not unfinished:
            return
        with progress_bar(
            total=sum(run.total_steps for run in self._runs),
            initial=self._steps_done(),
            desc="train",
            unit="step",
            smoothing=0,  # The steps of a run are seen when it saves them, many at a time.
        ) as bar:

            def show() -> None:
                bar.update(self._steps_done() - bar.n)

            self._work(unfinished, StudyRun.job, "trained", self._note_end, show)

    def _note_end(self, run: StudyRun) -> None:
        self._ended.add(run.name)

    def _steps_done(self) -> int:
        """Returns the steps that are not ahead, with those that an ended run has left out."""
        ended = self._ended | self._failures.keys()
        return sum(run.total_steps if run.name in ended else run.steps_done() for run in self._runs)

    def _evaluate(self) -> None:
        trained = [run for run in self._runs if run.name not in self._failures]
        missing = [run for run in trained if not self._evaluations.is_done(run)]
        if not missing:
            return
        with progress_bar(total=len(missing), desc="evaluate", unit="run") as bar:

            def end(run: StudyRun) -> None:
                self._evaluations.note(run)
                bar.update()

            self._work(missing, self._evaluations.job, "evaluated", end, lambda: None)

    def _work(
        self,
        runs: Sequence[StudyRun],
        job_of: Callable[[StudyRun], Job],
        verb: str,
        on_success: Callable[[StudyRun], None],
        show: Callable[[], None],
    ) -> None:
        """Runs the jobs of runs, prints a line for each, and notes failures."""
        by_name = {run.name: run for run in runs}
        ended = 0

        def on_end(result: Result) -> None:
            nonlocal ended
            ended += 1
            run = by_name[result.job.name]
            if result.status:
                failure = f"{result.failure} ({run.log})"
                if run.differs():
                    failure += (
                        f". {run.folder.path} is of other flags or data: remove it, or give "
                        "another `--output_dir`"
                    )
                self._failures[run.name] = failure
                _say(f"[{ended}/{len(runs)}] {failure}")
                return
            on_success(run)
            _say(f"[{ended}/{len(runs)}] {verb}: {run.name}, {result.seconds / 60:.1f} minutes")

        self._children.run([job_of(run) for run in runs], on_end=on_end, on_poll=show, note=_say)

    def _write(self, runs: Sequence[StudyRun], command: str) -> None:
        # Otherwise a module whose first seed failed would no longer be the first one.
        order = list(dict.fromkeys(run.stem for run in self._runs))
        modules = read_modules(sorted(runs, key=lambda run: order.index(run.stem)))
        label_set = modules[0].first.run.folder.label_set
        cost = costs.measured_once(
            self._output_dir / "costs.json",
            {module.flagfile: module.first.scores.without_seed() for module in modules},
            label_set.num_classes,
        )
        found = differences(modules)
        drawn = self._draw(modules)
        text = functools.partial(page.markdown, modules, found, cost)
        missing = list(self._failures.values())
        if modules[0].flagfile != order[0]:
            missing.append(
                f"{order[0]}, the first flagfile, has no result: {modules[0].flagfile} takes its "
                "place"
            )
        files.write_text(self._output_dir / page.TABLE, page.table(modules, found, cost))
        files.write_text(
            self._output_dir / page.PAGE, text(command=command, missing=missing, pictures=drawn)
        )
        names = (page.PAGE, page.TABLE, *drawn)
        print(f"written: {', '.join(str(self._output_dir / name) for name in names)}")

    def _draw(self, modules: Sequence[Module]) -> list[str]:
        """Draws the pictures that these modules allow, and returns their names."""
        drawn = []
        lines = {module.name: curve(module) for module in modules}
        if lines := {name: line for name, line in lines.items() if line[0]}:
            curves.draw_bands(lines, self._output_dir / page.CURVES)
            drawn.append(page.CURVES)
        if len(modules) > 1:
            sheet = pictures.disagreement_sheet(modules, self._data_dir, self._split)
            save_picture(self._output_dir / page.SHEET, sheet)
            drawn.append(page.SHEET)
        return drawn


def _say(text: str) -> None:
    """Prints a line above the progress bar, at once also where the output is a file."""
    tqdm.write(text)
    sys.stdout.flush()
