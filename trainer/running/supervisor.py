"""The process between the miner or verifier and a run: when it ends, so does everything the run started.

    python -I -S supervisor.py CONTROL STATUS COMMAND [ARGUMENT ...]

It starts COMMAND in a session of its own and waits until the command ends or the pipe CONTROL is closed from
the other side, which also happens when the parent dies in whatever way. Then it kills what is left. To the
descriptor STATUS it writes the command's process id once it runs, and at the end a second word, the command's
return code as subprocess gives it (negative: the signal), and a third, the number of processes that could not
be killed. Nothing at all means that the command could not be started.

On Linux it is the subreaper of all it starts, so a process that daemonises is still its descendant and is
found in /proc. macOS has no such thing: there the command's session and all descendants that `ps` links to it
die, and a process that cut both ties is left to the sandbox, which forbids it to be made. Whoever runs under
the same user and wants to can kill the supervisor itself, and the parent is told by the missing words: this
keeps order; it is not a sandbox.

This file is run by path and imports the standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
PATIENCE: Final = 10.0  # seconds until a process that will not die is reported


def main(control: int, status: int, command: list[str]) -> None:
    """Run `command`, wait for its end or the parent's word, clean up and report."""
    for descriptor in (control, status):
        os.set_inheritable(descriptor, False)
    # A handler, not SIG_IGN, which the command would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    try:
        # Held to the end: when it goes, a Popen collects a child that has ended already, and its code is lost.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", flush=True)
        return
    child = process.pid
    os.write(status, b"%d " % child)
    codes: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while not _collect(codes, child) and child not in codes:
            ready = {key.fd for key, _ in selector.select()}
            if control in ready:
                break
            if wake in ready:
                os.read(wake, 4096)
    left = _end(codes, child)
    os.write(status, b"%d %d" % (codes.get(child, -signal.SIGKILL), left))


def _collect(codes: dict[int, int], child: int) -> bool:
    """Collect the dead, noting the command's return code; whether no child is left, dead or alive."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return False
            if pid == child:
                codes[pid] = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        return True


def _end(codes: dict[int, int], child: int) -> int:
    """Kill until nothing is left, or how many are left when patience ends.

    On Linux that takes no list of all processes, which a quick chain of forks would outrun: who loses its
    parent becomes our child, so all are gone when we have none.
    """
    deadline = time.monotonic() + PATIENCE
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        alone = _collect(codes, child)
        if sys.platform == "linux":
            left = {int(pid) for pid in own.read_text().split()}
        else:
            left = descendants(os.getpid(), child)
        if (alone and not left) or time.monotonic() > deadline:
            return len(left)
        _kill(left)
        time.sleep(0.0005)


def kill_session(session: int) -> None:
    """Kill a session and all below it that a list of processes shows, for as long as patience lasts."""
    deadline = time.monotonic() + PATIENCE
    while (left := descendants(session, session)) and time.monotonic() < deadline:
        _kill(left)
        time.sleep(0.002)


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or set-uid: stays counted
            os.kill(pid, signal.SIGKILL)


def descendants(root: int, session: int) -> set[int]:
    """The living processes below `root` or in `session`, without those dead but not yet collected."""
    table = {pid: (parent, sid) for pid, parent, sid, dead in _processes() if not dead}
    found = {pid for pid, (_, sid) in table.items() if sid == session}
    while more := {pid for pid, (up, _) in table.items() if up in found or up == root} - found:
        found |= more
    return found


def _processes() -> Iterator[tuple[int, int, int, bool]]:
    """(pid, parent, session, dead) of every process that can be seen."""
    if sys.platform == "linux":
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                except OSError:
                    continue
                # A process whose first thread has ended looks dead while its other threads live.
                dead = fields[0] in "ZX" and int(fields[17]) <= 1
                yield int(entry.name), int(fields[1]), int(fields[3]), dead
        return
    # `sess` is a kernel address on macOS; the group equals the session for all that never left it.
    table = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False
    )
    for line in table.stdout.splitlines():
        pid, parent, group, state = line.split()[:4]
        yield int(pid), int(parent), int(group), state.startswith("Z")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
