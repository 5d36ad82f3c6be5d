"""The lock of a run's folder: one process at a time writes there, and the lock ends with its process."""

import errno
import fcntl
import json
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import Any, TypedDict

from sgcd.errors import FolderError
from sgcd.storage.atomic import writing

LOCK_FILE = "run.lock"
"""Says who holds the lock. It stays, empty, when nobody does: a file that is removed could be locked by two."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers, as some network disks do."""
_log = getLogger(__name__)


@contextmanager
def lock_run(path: Path) -> Generator[None, None, None]:
    """Hold the lock of a run's folder, which is made if need be. Refuses while another process holds it.

    On a file system without locks it warns and goes on: a run must be possible there.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(
                f"{path}: {_describe_holder(os.pread(handle, 4096, 0))} is writing in this folder; wait for it or stop "
                "it, then repeat the command"
            ) from None
        except OSError as problem:
            if problem.errno not in _NO_LOCKS:
                raise
            _log.warning(
                f"{path}: this file system has no locks ({os.strerror(problem.errno)}), so a second process in this "
                "folder is not noticed; start none"
            )
        with writing(path / LOCK_FILE):
            os.ftruncate(handle, 0)
            os.pwrite(handle, _holder(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _holder() -> bytes:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": platform.node(), "since": since}).encode()


class LockHolder(TypedDict):
    """The process that writes in a folder."""

    pid: int
    host: str
    since: str


def read_lock_holder(path: Path) -> LockHolder | None:
    """Who writes in a run's folder now, without touching the lock.

    The entry of a process of this machine that is gone was left by a kill, and counts as none.
    """
    try:
        holder: LockHolder = json.loads((path / LOCK_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    try:
        if holder["host"] == platform.node():
            os.kill(holder["pid"], 0)  # only asks whether the process is there
    except PermissionError:
        pass  # it is there, and another user's
    except (ProcessLookupError, ValueError, KeyError, TypeError):
        return None
    return holder


def _describe_holder(content: bytes) -> str:
    """Who holds the lock; the file is empty for a moment after it was taken."""
    try:
        holder: dict[str, Any] = json.loads(content)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"
