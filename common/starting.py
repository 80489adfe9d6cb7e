"""Ctrl-C while a program is imported: one line and exit status 130, as later."""

import _signal as signal  # type: ignore[import-not-found]  # `signal` imports enum: 4 ms of those to be covered
import os


def _stop(*_: object) -> None:
    os.write(2, b"\nStopped.\n")
    os._exit(130)


class Starting:
    """Until the block ends, Ctrl-C ends the process at once: nothing was begun yet. A KeyboardInterrupt would be lost
    in some places of an import, and come out of others as another error.

    A SIGINT that the shell ignores (a job with &) stays ignored.
    """

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
