"""The lock of a run folder: only one training at a time writes into it.

The lock is a file that is made with O_EXCL, so that only one of several processes makes it. Its
owner writes a counter into it every ten seconds. Whoever finds the lock of a process of the same
machine knows at once whether that process still runs; the lock of another machine is abandoned when
its counter has not moved for two minutes of the clock of the observer. An abandoned lock is taken
over by renaming it, which only one process can do, and making a new one.

A process that was paused for minutes may find another owner. Therefore the owner reads the lock
before each change of the folder. On NFS this relies on O_EXCL, rename and the consistency of a file
that is closed and then opened; these are guaranteed since NFS version 3 and were not tested.
"""

import contextlib
import datetime
import json
import os
import platform
import threading
import time
from pathlib import Path

from kseg import cli, files
from kseg.errors import UserError

NAME = "training.lock"
RENEW_SECONDS = 10.0
STALE_SECONDS = 120.0


class RunLock:
    """The lock of a run folder, a context manager. The folder is created if it is missing.

    Args:
        folder: The folder of the run.
        renew_seconds: Seconds between two changes of the counter. Defaults to 10.
        stale_seconds: Seconds after which the lock of another machine is abandoned if its counter
            has not moved. Defaults to 120.

    Attributes:
        former: Token of the process from which the lock was taken over; empty if from none.

    Raises:
        UserError: On entry, if another training has the lock, or if the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        renew_seconds: float = RENEW_SECONDS,
        stale_seconds: float = STALE_SECONDS,
    ):
        self.path = Path(folder) / NAME
        self.former = ""
        self._renew_seconds = renew_seconds
        self._stale_seconds = stale_seconds
        self._token = ""
        self._counter = 0
        self._released = threading.Event()

    def __enter__(self) -> "RunLock":
        with cli.writing({"model_dir": self.path.parent}):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._create():
                self._take_over(self._abandoned())
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._renewal.start()
        return self

    def __exit__(self, *_) -> None:
        self._released.set()
        self._renewal.join()  # Otherwise it might write into a file that gets the same descriptor.
        os.close(self._file)
        with contextlib.suppress(OSError):
            if self._holds():
                self.path.unlink()
            self.path.parent.rmdir()  # Only if it is empty: the training wrote nothing.

    def require(self) -> None:
        """Raises `UserError` unless this process still has the lock."""
        if not self._holds():
            text = self._read()
            if text is None:
                raise UserError(
                    f"{self.path} is gone: the folder of the run was removed or moved while it was "
                    "trained. This training stops and writes nothing more"
                )
            raise UserError(
                f"Another training has taken over {self.path.parent} ({_owner(text)}), "
                "since this one did not renew its lock for a while (it was paused, or the file "
                "system did not answer). This training stops and writes nothing more"
            )

    def _holds(self) -> bool:
        text = self._read()
        if text is None:  # Another process may have moved it for a moment, see `_take_over`.
            time.sleep(0.1)
            text = self._read()
        return _token(text) == self._token

    def _create(self) -> bool:
        """Makes the lock; returns False if there is one."""
        try:
            self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        except FileExistsError:
            return False
        self._token = files.process_token()
        _, number, start = self._token.split(".")
        self._content = {
            "token": self._token,
            "host": platform.node(),
            "boot_id": files.boot_id(),
            "process": int(number),
            "process_start": start,
            "since": datetime.datetime.now().isoformat(" ", "seconds"),
        }
        try:
            self._write()
        except OSError:  # A full disk. The lock would seem to be that of another process.
            os.close(self._file)
            self.path.unlink()
            raise
        return True

    def _write(self) -> None:
        # All versions have the same length. They are written into the file that this process made:
        # if the lock was taken over, that file has been renamed, and the lock of another process is
        # not touched.
        content = json.dumps(self._content).removesuffix("}")
        os.pwrite(self._file, f'{content}, "counter": {self._counter:12d}}}\n'.encode(), 0)

    def _renew(self) -> None:
        while not self._released.wait(self._renew_seconds):
            self._counter += 1
            with contextlib.suppress(OSError):  # Perhaps the file system answers the next time.
                self._write()

    def _read(self) -> str | None:
        """Returns the text of the lock; None if there is none."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _abandoned(self) -> str | None:
        """Returns the text of the lock once it is abandoned; None if it has been released.

        Raises:
            UserError: The owner of the lock still runs.
        """
        found = self._read()
        if found is None or files.has_ended(_token(found)):
            return found
        if _token(found).split(".")[0] == files.process_token().split(".")[0]:
            raise self._in_use(found)
        print(
            f"{self.path.parent} is locked by {_owner(found)}; waiting up to "
            f"{self._stale_seconds:g} s for its heartbeat",
            flush=True,
        )
        end = time.monotonic() + self._stale_seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, self._stale_seconds / 10))
            present = self._read()
            if present is None:
                return None
            if present != found:
                raise self._in_use(present)
        return found

    def _take_over(self, abandoned: str | None) -> None:
        """Removes an abandoned lock, unless another process has taken it over already."""
        if abandoned is None:
            return
        aside = files.partial_path(self.path)
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        moved = aside.read_text(encoding="utf-8", errors="replace")
        if moved != abandoned:
            # The lock was that of another process, which gets it back.
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
            aside.unlink()
            raise self._in_use(moved)
        aside.unlink()
        self.former = _token(abandoned)

    def _in_use(self, text: str) -> UserError:
        return UserError(
            f"`--model_dir` must not be in use by another training. {self.path.parent} is in use "
            f"by {_owner(text)}"
        )


def owner_here(folder: str | Path) -> str:
    """Returns which process of this machine trains in a folder now; empty if none does."""
    try:
        text = (Path(folder) / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    token = _token(text)
    is_here = token.split(".")[0] == files.process_token().split(".")[0]
    return _owner(text) if is_here and not files.has_ended(token) else ""


def _facts(text: str | None) -> dict:
    """Returns what a lock says: nothing if it is damaged, or if its owner is about to write it."""
    try:
        facts = json.loads(text or "")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _token(text: str | None) -> str:
    return str(_facts(text).get("token", ""))


def _owner(text: str | None) -> str:
    facts = _facts(text)
    if not facts:
        return "an unknown process"
    return "process {process} on {host} since {since}".format_map(
        dict.fromkeys(("process", "host", "since"), "unknown") | facts
    )
