"""Child processes: how many run at a time, what is said of failures, and how they are stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kseg.study import jobs
from kseg.study.jobs import Job, Jobs

REPOSITORY = Path(__file__).resolve().parents[2]
# Saves when it is asked to end, as a training does.
SAVES = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("begun", flush=True)
pathlib.Path(sys.argv[1] + ".begun").touch()
time.sleep(60)
"""


@pytest.fixture
def make_job(tmp_path):
    def make(name, script, *arguments, **options):
        command = (sys.executable, "-c", script, *map(str, arguments))
        return Job(name, command, tmp_path / f"{name}.log", **options)

    return make


def run(environments, tasks, **options):
    """Runs jobs and returns the results by name, in the order of their ends."""
    children, ended, lines = Jobs(environments), [], []
    children.run(tasks, on_end=ended.append, note=lines.append, **options)
    return children, {result.job.name: result for result in ended}, lines


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_at_most_so_many_jobs_run_at_a_time_each_in_its_environment(make_job, tmp_path):
    script = (
        "import json, os, sys, time; begun = time.time(); time.sleep(.3);"
        "open(sys.argv[1], 'w').write(json.dumps([os.environ['PLACE'], begun, time.time()]))"
    )
    tasks = [make_job(f"job_{k}", script, tmp_path / f"{k}.json") for k in range(5)]
    _, results, _ = run([{"PLACE": "a"}, {"PLACE": "b"}], tasks)
    assert [result.status for result in results.values()] == [0] * 5
    times = [json.loads((tmp_path / f"{k}.json").read_text()) for k in range(5)]
    assert {place for place, _, _ in times} == {"a", "b"}
    for place in "ab":
        spans = sorted(span for where, *span in times if where == place)
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


def test_a_failed_job_is_named_with_its_last_line_and_the_others_go_on(make_job):
    tasks = [
        make_job("bad", "print('first'); print('error: one'); print(' two'); exit(3)"),
        make_job("killed", "import os; print('\\rstep 5', flush=True); os.kill(os.getpid(), 9)"),
        make_job("silent", "exit(1)"),
        make_job("good", "print('done')"),
    ]
    _, results, _ = run([{}], tasks)
    assert list(results) == ["bad", "killed", "silent", "good"]
    assert results["bad"].failure == "bad failed (exit status 3): error: one two"
    assert results["killed"].failure == "killed failed (killed by SIGKILL): step 5"
    assert results["silent"].failure == "silent failed (exit status 1): no output"
    assert results["good"].status == 0 and results["good"].last_line == "done"


def test_the_output_is_appended_and_the_last_line_is_that_of_this_time(make_job):
    job = make_job("again", "import sys; sys.stderr.write('from the first time')")
    run([{}], [job])
    job = Job("again", (sys.executable, "-c", "pass"), job.log)
    _, results, _ = run([{}], [job])
    assert results["again"].last_line == ""
    assert job.log.read_text() == "from the first time"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_no_further_job_begins(make_job, tmp_path, number):
    tasks = [make_job(name, SAVES, tmp_path / name) for name in ("one", "two", "three")]
    former = signal.getsignal(number)

    def interrupt():
        wait_for((tmp_path / "one.begun").exists)
        wait_for((tmp_path / "two.begun").exists)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    children, results, _ = run([{}, {}], tasks)
    thread.join()
    assert children.received == number and results == {}
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "saved"
    assert not (tmp_path / "three.begun").exists()
    assert signal.getsignal(number) == former


def test_an_error_of_this_process_ends_the_children(make_job, tmp_path):
    def fail():
        if (tmp_path / "one.begun").exists():
            raise OSError("full disk")

    with pytest.raises(OSError, match="full disk"):
        run([{}], [make_job("one", SAVES, tmp_path / "one")], on_poll=fail)
    assert (tmp_path / "one").read_text() == "saved"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal at the parent's end")
def test_children_save_and_end_if_the_study_is_killed(tmp_path):
    (tmp_path / "child.py").write_text(SAVES)
    parent = (
        "import pathlib, sys; from kseg.study.jobs import Job, Jobs;"
        "folder = pathlib.Path(sys.argv[1]);"
        "command = (sys.executable, str(folder / 'child.py'), str(folder / 'one'));"
        "Jobs([{}]).run([Job('one', command, folder / 'one.log')], on_end=print)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], cwd=REPOSITORY)
    try:
        wait_for((tmp_path / "one.begun").exists)
    finally:
        process.kill()
        process.wait()
    wait_for((tmp_path / "one").exists)


def test_a_job_waits_for_another_process_and_the_others_go_first(make_job):
    owners = iter(["process 7", "process 7", ""])
    tasks = [
        make_job("busy", "pass", occupied=lambda: next(owners)),
        make_job("free", "pass"),
    ]
    _, results, lines = run([{}], tasks)
    assert list(results) == ["free", "busy"]
    assert lines == ["busy waits at most 120 s for process 7"]


def test_a_job_does_not_wait_for_ever(make_job, monkeypatch):
    monkeypatch.setattr(jobs, "LONGEST_WAIT", 0.3)
    job = make_job("busy", "exit(1)", occupied=lambda: "process 7")
    _, results, lines = run([{}], [job])
    assert results["busy"].status == 1 and len(lines) == 1


def test_the_environments_of_jobs(monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert jobs.environments(0, [], 8) == [{}]
    assert jobs.environments(0, ["0", "1"], 8) == [
        {"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"},
    ]  # fmt: skip
    places = [place["CUDA_VISIBLE_DEVICES"] for place in jobs.environments(3, ["4", "6"], 8)]
    assert places == ["4", "6", "4"]
    places = [place["CUDA_VISIBLE_DEVICES"] for place in jobs.environments(2, list("01234"), 8)]
    assert places == ["0,2,4", "1,3"], "fewer jobs than GPUs use all of them"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    threads = {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2"}
    assert jobs.environments(3, [], 8) == [threads] * 3
    assert jobs.environments(9, [], 8)[0]["TF_NUM_INTRAOP_THREADS"] == "1"


def test_the_gpus_are_those_that_the_user_has_allowed(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert jobs.visible_gpus(2) == ["0", "1"] and jobs.visible_gpus(0) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert jobs.visible_gpus(2) == ["3", "5"]
