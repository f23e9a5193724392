"""Background jobs: one at a time, in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from index.errors import SoftrecError

_LOG = logging.getLogger(__name__)


class Background:
    """Runs jobs in a thread of its own. Any thread may call any method.

    Args:
        note: receives the error of a job, if a person can act on it.
        after: called in that thread after each job, to start a job that was refused meanwhile.
    """

    def __init__(self, note: Callable[[str], None], after: Callable[[], None]) -> None:
        self._note, self._after = note, after
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._lock = threading.Lock()  # of the two below
        self._busy = False
        self._closed = False

    def start(self, job: Callable[[], object]) -> bool:
        """Start a job; False, and nothing happens, while another runs or after `close`."""
        with self._lock:
            if self._busy or self._closed:
                return False
            self._busy = True
            self._pool.submit(self._run, job)
            return True

    def close(self) -> None:
        """Wait for the job that runs; no other is started."""
        with self._lock:
            self._closed = True
        self._pool.shutdown()

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except (SoftrecError, OSError) as error:  # a full disk, say
            self._note(f"index: {error}")
        except Exception:
            _LOG.exception("a job in the background failed")  # no caller gets its traceback
        finally:
            with self._lock:
                self._busy = False
        self._after()
