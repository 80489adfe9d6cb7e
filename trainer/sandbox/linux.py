"""The Linux sandbox: bubblewrap's namespaces, resource limits and a seccomp filter, with or without root.

Inside there is a read-only file system of /usr, the interpreter's prefixes and the inputs, a private /proc
and a minimal /dev, no network, no other process, no capability, no environment. Writable are two sized tmpfs:
the scratch (/job/scratch, also /tmp) and /dev/shm. So disk is never touched, and the kernel itself holds the
size.

Results survive because `inside.py` passes the parent an open descriptor of the scratch before the candidate
runs: it keeps the tmpfs alive, alone, after the namespaces are gone. A folder of the host bound writable
would have no size limit and would leave the candidate's links and FIFOs on the host.

A verifier that is root is still root to the kernel inside, only without capabilities: as the owner it could
write /proc/sys and change the mode of the host's /dev/null. So /proc is mounted read-only, for root the
devices are too (they can still be written to), and stdin is a pipe. CUDA names its threads by writing
/proc/self/task/TID/comm and does not start where it cannot: there everything in /proc that belongs to no process
is covered read-only instead.

What would let a script tell one verdict from another is fixed as far as the kernel allows: host name, user, boot id,
uptime, load, and the counters of what the host does (`fixed_files`). What cannot be hidden is in docs/verification.md.

The tree is dead when the namespace's first process is: the kernel reports its end only after all others are
gone. Memory and processes are polled (the kernel does not hold root to RLIMIT_NPROC, and RLIMIT_DATA is per
process). Needs Linux 5.3 with unprivileged user namespaces and bubblewrap 0.8.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import INSTALL_BUBBLEWRAP, EnvironmentNotReady
from trainer.sandbox import seccomp
from trainer.sandbox.entry import Entered, Order, SetupFailed, common_limits, enter, order, prefixes, sources
from trainer.sandbox.job import KILL_SECONDS, Job, JobLimits, LastWord, Mount, StartedTree, TreeUsage

JOB = "/job"
_SHM_BYTES = 64 << 20
_KILL_MILLISECONDS = 60_000
_REAP_SECONDS = 5
_LOOK_SECONDS = 0.005
_KILLED_DIRECTLY = 64
_PF_EXITING = 0x4  # include/linux/sched.h
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
)  # as --dev binds
_SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = ("/usr", "/etc/ld.so.cache", "/etc/alternatives")
_GPU_CHOICE = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""All that a job inherits, with CUDA only: which of several GPUs it is to use, as whoever started us chose."""


def fixed_files(proc: Path = Path("/proc")) -> dict[str, bytes]:
    """Files of /proc that tell of the host's boot and doings, with what they say inside; only those there are."""
    cores = sum(line[3:4].isdigit() for line in _lines(proc / "stat") if line.startswith("cpu"))
    counts = " 0" * 10 + "\n"
    said = {
        "sys/kernel/random/boot_id": "00000000-0000-4000-8000-000000000000\n",
        "uptime": "1000.00 1000.00\n",
        "loadavg": "0.00 0.00 0.00 1/1 1\n",
        "stat": f"cpu {counts}" + "".join(f"cpu{core}{counts}" for core in range(cores)) + "btime 0\n",
    }
    for name in ("diskstats", "interrupts", "schedstat", "softirqs", "swaps", "vmstat", "zoneinfo", "buddyinfo"):
        said[name] = ""
    return {str(proc / name): text.encode() for name, text in said.items() if (proc / name).exists()}


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []


def _nvidia_devices() -> list[str]:
    return sorted(str(path) for path in Path("/dev").glob("nvidia*"))


def _system_entries(proc: Path = Path("/proc")) -> list[str]:
    """What /proc holds beside processes that could be written to: its folders, and files with a mode that allows it."""
    return sorted(
        str(entry)
        for entry in proc.iterdir()
        if not entry.name.isdigit()
        and not entry.is_symlink()
        and (entry.is_dir() or entry.stat(follow_symlinks=False).st_mode & 0o222)
    )


def protected(bwrap: str, devices: Sequence[str]) -> list[str]:
    """The command that starts bubblewrap for root: in namespaces where `devices` are mounted read-only.

    bubblewrap itself binds devices writable, and its --remount-ro would forbid to open them.
    """
    mount = "mount --bind -- $device $device && mount -o remount,bind,ro -- $device || exit 1"
    script = f'for device in {" ".join(devices)}; do {mount}; done; exec env -i "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh", bwrap]


def options(
    mounts: Sequence[Mount], tools: Sequence[Path], scratch_bytes: int, cuda: bool, fixed: Mapping[str, int]
) -> list[str]:
    """bubblewrap's options for a job, reading only which of the host's folders exist.

    `fixed` are descriptors of what is in `fixed_files`, by path.
    """
    found = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--new-session"]
    found += ["--die-with-parent", "--clearenv", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    scratch, link = f"{JOB}/scratch", "/tmp"
    if any(Path(name).is_relative_to("/tmp") for _, name in prefixes(tools)):
        # A tool below /tmp is mounted in that folder, which therefore has to be the scratch itself.
        scratch, link = link, scratch
    found += ["--size", str(scratch_bytes), "--perms", "0700", "--tmpfs", scratch]
    for path in _SYSTEM_FILES:
        found += ["--ro-bind-try", path, path]
    for path in _SYSTEM_LINKS:
        if os.path.islink(path):
            found += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            found += ["--ro-bind", path, path]
    found += ["--proc", "/proc", "--dev", "/dev"]
    if cuda:
        found += ["--ro-bind-try", "/sys", "/sys"]
        for device in _nvidia_devices():
            found += ["--dev-bind", device, device]
    for source, name in prefixes(tools):
        if not Path(name).is_relative_to("/usr"):
            found += ["--ro-bind", source, name]
    for source, target in sources(mounts):
        found += ["--ro-bind", source, f"{JOB}/{target}"]
    found += ["--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]
    if cuda:
        for entry in _system_entries():
            found += ["--ro-bind-try", entry, entry]
    else:
        found += ["--remount-ro", "/proc"]
    found += ["--remount-ro", "/dev"]
    for path, handle in fixed.items():
        found += ["--ro-bind-data", str(handle), path]
    return [*found, "--symlink", scratch, link, "--remount-ro", "/"]


def resource_limits(limits: JobLimits, release: str, cuda: bool) -> dict[str, int]:
    """The caps of each process; `release` is the kernel's."""
    caps = common_limits(limits) | {"RLIMIT_MSGQUEUE": 0}
    if not cuda:  # twice the polled cap: a backstop between two polls that honest reservations do not meet
        caps["RLIMIT_DATA"] = 2 * limits.memory_bytes + (1 << 30)
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) >= (5, 14):
        caps["RLIMIT_NPROC"] = limits.processes + 2  # before 5.14 it would count the user's other processes
    return caps


def cure(words: str) -> str:
    """What to do about bubblewrap's complaint."""
    if "nknown option" in words:
        return "Install bubblewrap 0.8 or later."
    if "/proc" in words or "proc on" in words:
        return "In a container, run it with an unmasked /proc (docker: --security-opt systempaths=unconfined)."
    if "namespace" in words or "uid map" in words or "ermission" in words or "not permitted" in words:
        return (
            "Allow unprivileged user namespaces: sysctl user.max_user_namespaces=10000, on Debian also "
            "kernel.unprivileged_userns_clone=1, on Ubuntu an AppArmor profile for bwrap or "
            "kernel.apparmor_restrict_unprivileged_userns=0."
        )
    return "Run `bwrap --unshare-all --ro-bind / / true` to see whether bubblewrap works here."


def descendants(root: int, most: int = 1 << 16) -> list[int]:
    """`root` and what is below it, from /proc, `most` at most; those that end meanwhile are left out."""
    pids = [root]
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as children:
                    pids += map(int, children.read().split())
        if len(pids) >= most:
            break
    return pids[:most]


def tree_usage(root: int, limits: JobLimits) -> tuple[int, int]:
    """(memory in bytes, processes and threads) of the tree below `root`.

    Memory is the sum of resident sizes, and only when that is over the cap the dearer sum of proportional
    sizes. A look during which a process ended is repeated, twice at most, and the largest counts; a look that
    finds too many processes is cut short, since a fork bomb makes them faster than they can be read.
    """
    memory = tasks = 0
    for _ in range(3):
        pids, resident, threads, complete = descendants(root, limits.processes + 2), 0, 0, True
        if len(pids) > limits.processes + 1:
            return memory, len(pids)
        for pid in pids:
            try:
                with open(f"/proc/{pid}/statm") as statm:
                    resident += int(statm.read().split()[1]) * _PAGE
                threads += len(os.listdir(f"/proc/{pid}/task"))
            except (OSError, IndexError):
                complete = False
        if resident > limits.memory_bytes:
            resident = sum(_proportional(pid) for pid in pids)
        memory, tasks = max(memory, resident), max(tasks, threads)
        if complete:
            break
    return memory, tasks


def condemned(root: int) -> bool:
    """Whether no thread of the tree below `root` can run a further instruction of its own: each is dead, on its way
    out, or has SIGKILL pending, which is seen before any return from the kernel.
    """
    for pid in descendants(root):
        with contextlib.suppress(OSError):  # it is gone
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    if not _ends(f"/proc/{pid}/task/{task}"):
                        return False
    return True


def _ends(task: str) -> bool:
    with open(f"{task}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X") or int(fields[6]) & _PF_EXITING:
        return True
    with open(f"{task}/status", "rb") as file:
        pending = [line.split()[1] for line in file if line.startswith((b"SigPnd:", b"ShdPnd:"))]
    return any(int(mask, 16) >> (signal.SIGKILL - 1) & 1 for mask in pending)


def silenced(dead: Callable[[float], bool], doomed: Callable[[], bool]) -> float:
    """Seconds from now until nothing of a killed tree could run, `inf` where that was not seen in KILL_SECONDS.

    `dead` waits so many seconds for the tree's death, `doomed` says whether what is left of it cannot run.
    """
    began = time.monotonic()
    while (passed := time.monotonic() - began) <= KILL_SECONDS:
        # Looking comes before waiting: on a busy machine whoever waits for an instant is back after many.
        if doomed() or dead(min(_LOOK_SECONDS, KILL_SECONDS - passed)):
            return time.monotonic() - began
    return math.inf


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class _Namespace:
    """A running bubblewrap; `init` is the first process of its pid namespace, `handle` its descriptor."""

    entered: Entered
    init: int
    handle: int

    def go(self) -> None:
        self.entered.go()

    def poll(self) -> int | None:
        return self.entered.process.poll()

    def usage(self, limits: JobLimits) -> TreeUsage:
        memory, tasks = tree_usage(self.init, limits)
        file_systems = [os.fstatvfs(folder) for folder in self.entered.folders]
        scratch = sum((system.f_blocks - system.f_bfree) * system.f_frsize for system in file_systems[:1])
        return TreeUsage(
            memory + scratch,  # the scratch is in memory
            tasks,
            scratch,
            sum(system.f_files - system.f_ffree for system in file_systems),
        )

    def kill(self) -> float:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        # The first process takes all others with it, once it is scheduled; on a busy host that could be a while.
        for pid in descendants(self.init, _KILLED_DIRECTLY)[1:]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        waiting = select.poll()
        waiting.register(self.handle, select.POLLIN)
        lag = silenced(lambda seconds: bool(waiting.poll(1000 * seconds)), lambda: condemned(self.init))
        if not waiting.poll(_KILL_MILLISECONDS):
            raise EnvironmentNotReady(
                f"The sandbox's process {self.init} survived SIGKILL.",
                "Check it with ps (a driver or disk may hang), and restart the machine if needed.",
            )
        # the outer process has nothing left to do but to reap the dead one and end
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.entered.process.wait(timeout=_REAP_SECONDS)
        self.entered.process.kill()
        self.entered.process.wait()
        for folder in self.entered.folders[1:]:
            os.close(folder)
        os.close(self.handle)
        return lag

    def close(self) -> None:
        """The scratch's last descriptor is the job's; nothing is left here."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """The sandbox of `trainer.sandbox.Sandbox` on Linux; `cuda` binds the NVIDIA devices through."""

    cuda: bool = False
    name: str = "bubblewrap"

    def start(
        self,
        argv: Sequence[str],
        *,
        limits: JobLimits,
        tools: Sequence[Path],
        mounts: Sequence[Mount] = (),
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        last_word: LastWord | None = None,
        scratch: Path | None = None,
    ) -> Job:
        """See `trainer.sandbox.Sandbox.start`."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise EnvironmentNotReady("bubblewrap is not installed.", INSTALL_BUBBLEWRAP)
        if platform.machine() not in seccomp.AUDIT_ARCH:
            raise EnvironmentNotReady(
                f"The sandbox's system-call filter knows {' and '.join(seccomp.AUDIT_ARCH)}, "
                f"and this is {platform.machine()}.",
                "Use a machine of one of these kinds.",
            )
        if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
            raise EnvironmentNotReady(
                "The sandbox counts memory by /proc/PID/task/TID/children, and this kernel has none.",
                "Use a kernel with CONFIG_PROC_CHILDREN.",
            )
        caps = resource_limits(limits, platform.release(), self.cuda)
        chosen = {name: os.environ[name] for name in _GPU_CHOICE if self.cuda and name in os.environ}
        what = order(JOB, argv, chosen | dict(env or {}), cwd, (f"{JOB}/scratch", "/dev/shm"), caps)
        wanted = functools.partial(options, mounts, tools, limits.scratch_bytes, self.cuda)
        wanted({})  # a mount that cannot be is refused here
        return Job(lambda: self._enter(bwrap, wanted, what), limits, last_word, scratch)

    def _enter(self, bwrap: str, wanted: Callable[[Mapping[str, int]], Sequence[str]], what: Order) -> StartedTree:
        with contextlib.ExitStack() as files:

            def sealed(data: bytes) -> int:
                file = files.enter_context(open(os.memfd_create("sandbox"), "r+b", buffering=0))
                file.write(data)
                file.seek(0)
                return file.fileno()

            info, info_end = os.pipe()
            told = files.enter_context(open(info, "rb"))
            written = files.enter_context(open(info_end, "wb"))
            filters = sealed(seccomp.program(platform.machine(), memfd=self.cuda))
            fixed = {path: sealed(data) for path, data in fixed_files().items()}
            given = [*wanted(fixed), "--seccomp", str(filters), "--info-fd", str(info_end)]
            arguments = sealed(b"".join(os.fsencode(option) + b"\0" for option in given))
            devices = [*_DEVICES, *(_nvidia_devices() if self.cuda else ())]
            wrapper = protected(bwrap, devices) if os.geteuid() == 0 else [bwrap]
            wrapper += ["--args", str(arguments), "--"]
            try:
                entered = enter(wrapper, (arguments, filters, info_end, *fixed.values()), what)
            except SetupFailed as failure:
                words = str(failure)
                raise EnvironmentNotReady(f"The sandbox could not be set up: {words}.", cure(words)) from None
            written.close()
            # inside.py waits for the word, so the process of that number is still the one bubblewrap meant
            try:
                init = int(json.loads(told.read(4096))["child-pid"])
                tree = _Namespace(entered, init, os.pidfd_open(init))
                for pid in descendants(init):  # when the host runs out of memory: this tree first
                    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
                # it has to be scheduled in order to take the others with it, in a fork bomb too
                with contextlib.suppress(PermissionError):
                    os.setpriority(os.PRIO_PROCESS, init, -20)
            except (OSError, ValueError, KeyError) as error:
                entered.abandon()
                raise EnvironmentNotReady(
                    f"Cannot control the sandbox's first process: {error}.",
                    "Use Linux 5.3 or later and a /proc without hidepid.",
                ) from error
        return StartedTree(tree, entered.output, entered.channel, entered.folders[0])
