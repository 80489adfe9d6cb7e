"""Real escapes, bombs and lies against the sandbox of this machine, and its pure parts as tables."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import is_alive, require
from trainer.errors import EnvironmentNotReady
from trainer.sandbox import (
    Job,
    JobLimits,
    Mount,
    Sandbox,
    UntrustedResult,
    choose,
    interpreter_prefixes,
    probe,
    seccomp,
)
from trainer.sandbox.entry import prefixes, relative
from trainer.sandbox.host import NoIsolation, folder_usage
from trainer.sandbox.job import SCRATCH_FILES, TreeUsage, exceeded
from trainer.sandbox.linux import cure, descendants, options, protected, resource_limits

PYTHON = Path(sys.executable)
TOOLS = interpreter_prefixes(PYTHON)
MEBIBYTE = 1 << 20
LIMITS = JobLimits(
    wall_seconds=30,
    memory_bytes=256 * MEBIBYTE,
    processes=64,
    file_bytes=8 * MEBIBYTE,
    scratch_bytes=16 * MEBIBYTE,
    output_bytes=64 * 1024,
)
SLEEP = "\nimport time; print('up', flush=True); time.sleep(60)"


_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Processes that other tests of this session have left us, such as multiprocessing's resource tracker."""
    _OTHERS.clear()
    _OTHERS.update(descendants(os.getpid()))


def ours(most: int = 1 << 16) -> list[int]:
    """What this test has started and is still there."""
    return [pid for pid in descendants(os.getpid(), most) if pid not in _OTHERS]


def with_limits(**changes: float) -> JobLimits:
    return JobLimits(**{name: changes.get(name, getattr(LIMITS, name)) for name in JobLimits.__slots__})


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    require(sys.platform == "linux", "Linux (the macOS sandbox is probed at start)")
    require(shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    return choose()


def start(
    sandbox: Sandbox, code: str, *arguments: str, limits: JobLimits = LIMITS, mounts: Sequence[Mount] = ()
) -> Job:
    return sandbox.start([str(PYTHON), "-c", code, *arguments], limits=limits, tools=TOOLS, mounts=mounts)


def run(sandbox: Sandbox, code: str, *arguments: str) -> str:
    """The output of a job that must end well."""
    with start(sandbox, code, *arguments) as job:
        outcome = job.wait()
    assert (outcome.kind, outcome.exit_code) == ("exited", 0), outcome
    return outcome.output.decode()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


# --- what must not be possible --------------------------------------------------------------------------


DENIED = {
    "tcp": "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
    "udp": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', 22), 2)",
    "vsock": "import socket; socket.socket(socket.AF_VSOCK)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "unix socket of the host": "import socket; socket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
    "home": "import os; os.listdir(sys.argv[1] + '/.ssh')",
    "file of the host": "open(sys.argv[2])",
    "accounts": "open('/etc/shadow')",
    "sys": "import os; os.listdir('/sys')",
    "write to an input": "open('in/data.txt', 'a')",
    "chmod of an input": "import os; os.chmod('in/data.txt', 0o777)",
    "replace an input": "import os; os.rename('scratch', 'in')",
    "write to the interpreter": "open(sys.prefix + '/x', 'w')",
    "write to the root": "open('/x', 'w')",
    "write to the job folder": "open('/job/x', 'w')",
    "write to dev": "open('/dev/x', 'w')",
    "host device's mode": "import os; os.chmod('/dev/null', 0o666)",
    "kernel settings": "open('/proc/sys/kernel/core_pattern', 'w')",
    "sysrq": "open('/proc/sysrq-trigger', 'w')",
    "unprotect by oom score": "os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')",
    "ptrace": "c(libc.ptrace(0, 0, 0, 0))",
    "unshare": "c(libc.unshare(0x10000000))",
    "setns": "import os; c(libc.setns(os.open('/proc/self/ns/net', 0), 0))",
    "clone with a namespace": "c(libc.syscall(n(56, 220), 0x10000011, 0, 0, 0, 0))",
    "mount": "c(libc.mount(b'none', b'/job/scratch', b'tmpfs', 0, 0))",
    "remount": "c(libc.mount(b'none', b'/', None, 32, 0))",
    "chroot": "os.chroot('/job/scratch')",
    "keyring": "c(libc.syscall(n(250, 219), 0, -3, 1))",
    "bpf": "c(libc.syscall(n(321, 280), 0, 0, 0))",
    "perf": "c(libc.syscall(n(298, 241), 0, 0, -1, -1, 0))",
    "io_uring": "c(libc.syscall(425, 1, 0))",
    "userfaultfd": "c(libc.syscall(n(323, 282), 0))",
    "process_vm_readv": "c(libc.process_vm_readv(1, 0, 0, 0, 0, 0))",
    "unseen memory": "os.memfd_create('x')",
    "unseen shared memory": "c(libc.shmget(0, 4096, 0o1600))",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "become root": "os.setuid(0)",
    "device node": "os.mknod('scratch/null', 0o20666, os.makedev(1, 3))",
    "core dumps": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
    "raise a limit": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
    "signal the parent": "os.kill(int(sys.argv[3]), 0)",
}


CUDA_NEEDS = {"sys", "unseen memory"}  # what the NVIDIA driver reads and makes


@pytest.mark.parametrize("cuda", [False, True])
def test_what_is_denied(sandbox: Sandbox, cuda: bool, tmp_path: Path) -> None:
    if cuda:
        sandbox = choose(cuda=True)
    attempts = {name: code for name, code in DENIED.items() if not (cuda and name in CUDA_NEEDS)}
    data = tmp_path / "data.txt"
    data.write_text("input")
    code = f"""
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def n(x86_64, aarch64):
    return x86_64 if os.uname().machine == "x86_64" else aarch64
def c(result):
    if result == -1 and ctypes.get_errno() == 1:  # EPERM, by the filter; any other refusal would be luck
        raise OSError("refused")
assert open("in/data.txt").read() == "input" and os.getuid() == 65534
assert not os.path.samestat(os.stat(0), os.stat("/dev/null"))  # whose mode descriptor 0 could change
for name, attempt in {attempts!r}.items():
    try:
        exec(attempt)
    except (OSError, ValueError) as error:
        print("denied", name)
    else:
        print("POSSIBLE", name)
"""
    mounts = [Mount(data, "in/data.txt")]
    with start(sandbox, code, str(Path.home()), str(data), str(os.getpid()), mounts=mounts) as job:
        lines = job.wait().output.decode().splitlines()
    assert lines == [f"denied {name}" for name in attempts]
    assert data.read_text() == "input"


@pytest.mark.parametrize("cuda", [False, True])
def test_nothing_of_the_kernel_can_be_written(sandbox: Sandbox, cuda: bool) -> None:
    """Root owns /proc/sys and more: with CUDA, which needs /proc writable, all that is no process is covered."""
    code = """
import os
for root, folders, files in os.walk("/proc"):
    if root == "/proc":
        folders[:] = [name for name in folders if not name.isdigit()]
    for name in files:
        try:
            os.close(os.open(os.path.join(root, name), os.O_WRONLY))
            print("WRITABLE", root, name)
        except OSError:
            pass
open("/proc/self/comm", "w").write("named")
"""
    with start(choose(cuda=cuda), code) as job:
        outcome = job.wait()
    assert b"WRITABLE" not in outcome.output
    assert (outcome.exit_code == 0) is cuda


def test_nothing_is_inherited(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_SECRET", "s3cret-in-the-environment")
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.set_inheritable(writing, True)
    code = """
import glob, os
print(sorted(os.environ))
print([fd for fd in map(int, os.listdir("/dev/fd")) if os.path.exists(f"/proc/self/fd/{fd}")])
print(sorted(name for name in os.listdir("/proc") if name.isdigit()))
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    print(open(path, "rb").read())
"""
    output = run(sandbox, code)
    os.close(reading)
    os.close(writing)
    environ, handles, processes, *texts = output.splitlines()
    expected = {"PATH", "LANG", "HOME", "TMPDIR", "SCRATCH", "PYTHONDONTWRITEBYTECODE"}
    assert set(eval(environ)) - {"LC_CTYPE"} == expected
    assert eval(handles) == [0, 1, 2, 3]
    assert eval(processes) == ["1", "2"]  # bubblewrap's own first process, and this one
    assert "s3cret" not in output
    assert texts[0] == "b''"  # the first process was started with no environment


@pytest.mark.parametrize("cuda", [False, True])
def test_the_chosen_gpu_is_passed_on_with_cuda(sandbox: Sandbox, cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_SECRET", "no")
    output = run(choose(cuda=cuda), "import os; print(*sorted(n for n in os.environ if n.startswith('CUDA')))")
    assert output.split() == (["CUDA_VISIBLE_DEVICES"] if cuda else [])


@pytest.mark.parametrize("cuda", [False, True])
def test_one_run_looks_like_another(sandbox: Sandbox, cuda: bool) -> None:
    """What tells of the host's boot, name and doings is the same in every run; the number of cores is as it is."""
    code = (
        "import json, os, platform, socket\n"
        "def text(path):\n    return open(path).read()\n"
        "print(json.dumps({'boot': text('/proc/sys/kernel/random/boot_id').strip(), 'up': text('/proc/uptime'),\n"
        "    'load': text('/proc/loadavg'), 'stat': text('/proc/stat'), 'interrupts': text('/proc/interrupts'),\n"
        "    'host': socket.gethostname(), 'node': platform.node(), 'user': [os.getuid(), os.getgid(), os.getpid()],\n"
        "    'cores': os.cpu_count(), 'memory': 'MemTotal' in text('/proc/meminfo')}))"
    )
    where = choose(cuda=True) if cuda else sandbox
    first, second = (json.loads(run(where, code)) for _ in range(2))
    assert first == second
    assert (
        first["boot"] == "00000000-0000-4000-8000-000000000000" != Path("/proc/sys/kernel/random/boot_id").read_text()
    )
    assert (first["host"], first["node"], first["interrupts"]) == ("sandbox", "sandbox", "")
    assert first["up"] == "1000.00 1000.00\n"
    assert first["stat"].endswith("btime 0\n")
    assert first["cores"] == os.cpu_count()
    assert first["memory"]


def test_caps_are_gone_and_the_filter_is_on(sandbox: Sandbox) -> None:
    status = run(sandbox, "print(open('/proc/self/status').read())")
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status


def test_a_call_of_another_architecture_kills(sandbox: Sandbox) -> None:
    require(os.uname().machine == "x86_64", "x86_64 for the 32-bit call")
    code = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
"""
    with start(sandbox, code) as job:
        outcome = job.wait()
    assert (outcome.exit_code, outcome.output) == (128 + signal.SIGSYS, b"")


# --- what must be possible ------------------------------------------------------------------------------


def test_probe_runs_mlx(sandbox: Sandbox) -> None:
    report = probe(sandbox)
    assert report.startswith("bubblewrap: MLX ")


def test_mlx_compiles_and_threads_work(sandbox: Sandbox) -> None:
    code = """
import concurrent.futures, os, subprocess, tempfile
import mlx.core as mx
step = mx.compile(lambda x, y: mx.exp(x) * y + mx.tanh(x - y))
print(mx.all(mx.isfinite(step(mx.ones((8, 8)), mx.zeros((8, 8))))).item())
print(len(list(concurrent.futures.ThreadPoolExecutor(4).map(abs, range(8)))))
print(subprocess.run(["true"], stdout=subprocess.DEVNULL).returncode, tempfile.gettempdir(), os.getcwd())
"""
    with start(sandbox, code, limits=with_limits(memory_bytes=2 << 30)) as job:
        outcome = job.wait()
    assert outcome.output.decode().split("\n")[:3] == ["True", "8", "0 /job/scratch /job"]


def test_folder_names_are_filled_in(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("import os; print(os.environ['PLACE'], os.getcwd())")
    with sandbox.start(
        [str(PYTHON), "{job}/in/code/tool.py"],
        limits=LIMITS,
        tools=TOOLS,
        mounts=[Mount(tmp_path, "in/code")],
        env={"PLACE": "{job}/in"},
        cwd="scratch",
    ) as job:
        # below /tmp, an interpreter makes that folder the scratch's own name
        assert job.wait().output in (b"/job/in /job/scratch\n", b"/job/in /tmp\n")


# --- bombs ----------------------------------------------------------------------------------------------

BOMBS = {
    "hang": ("import time; time.sleep(60)", {"wall_seconds": 0.5}, "killed_wall"),
    "mute": ("import os; os.closerange(0, 9)\nwhile True: pass", {"wall_seconds": 0.5}, "killed_wall"),
    "output": ("while True: print('x' * 1000)", {}, "killed_output"),
    "output, then the end": ("print('x' * 100_000)", {}, "killed_output"),
    "channel": ("import os\nwhile True: os.write(3, b'x\\n' * 100)", {}, "killed_output"),
    "channel without an end of line": ("import os; os.write(3, b'x' * 8192)" + SLEEP, {}, "killed_output"),
    "memory": ("x = bytearray(b'x') * (600 << 20)" + SLEEP, {}, "killed_memory"),
    "memory in pieces": (
        "import os\nfor i in range(5):\n  if os.fork() == 0: break\nx = bytearray(b'x') * (80 << 20)" + SLEEP,
        {},
        "killed_memory",
    ),
    "shared memory": (
        "import mmap\nx = mmap.mmap(-1, 600 << 20)\nfor i in range(0, 600 << 20, 4096): x[i] = 1" + SLEEP,
        {},
        "killed_memory",
    ),
    "files": ("import os\nfor i in range(200_000): os.mknod(f'/tmp/{i}')" + SLEEP, {}, "killed_scratch"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(sandbox: Sandbox, name: str) -> None:
    code, changes, kind = BOMBS[name]
    with start(sandbox, code, limits=with_limits(**changes)) as job:
        outcome = job.wait(timeout=25)
        assert outcome.kind == kind, outcome
        assert len(outcome.output) <= LIMITS.output_bytes
        assert outcome.truncated == (kind == "killed_output")
    assert not ours()


def test_fork_bomb(sandbox: Sandbox) -> None:
    """Killed by the count; for anyone but root the kernel also holds the number meanwhile."""
    code = "import os, time\ntry:\n  while True: os.fork()\nexcept OSError: time.sleep(60)"
    with start(sandbox, code, limits=with_limits(wall_seconds=2)) as job:
        most = 0
        while job.poll() is None:
            most = max(most, len(ours(2 * LIMITS.processes)))
            time.sleep(0.05)
        assert job.wait().kind == "killed_processes"
    if os.geteuid() != 0:
        assert most <= LIMITS.processes + 4
    assert not ours()


def test_file_sizes_are_the_kernel_s(sandbox: Sandbox) -> None:
    code = """
import os
for path in ("/tmp/one", "/dev/shm/one"):
    try:
        with open(path, "wb") as file:
            while True: file.write(bytes(1 << 20)); file.flush()
    except OSError as error:
        print(error.errno)
try:
    for i in range(100): open(f"/tmp/{i}", "wb").write(bytes(1 << 20))
except OSError as error:
    print(error.errno, i)
"""
    first, second, third = run(sandbox, code).splitlines()
    assert (first, second) == (str(errno.EFBIG), str(errno.EFBIG))
    assert int(third.split()[1]) < 16


# --- the end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import signal\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)",
        "import os\nif os.fork() == 0:\n  os.setsid()\n  if os.fork(): os._exit(0)",
        "import os\nfor i in range(4): os.fork()",
    ],
    ids=["ignores signals", "daemon", "family"],
)
def test_kill_takes_the_whole_tree(sandbox: Sandbox, code: str) -> None:
    with start(sandbox, code + SLEEP) as job:
        until(lambda: b"up" in job.output)
        tree = ours()
        assert len(tree) >= 3
        outcome = job.kill()
        assert outcome.kind == "killed_by_parent"
        assert not [pid for pid in tree if os.path.exists(f"/proc/{pid}")]
        assert job.kill() == outcome


def test_a_daemon_does_not_outlive_its_command(sandbox: Sandbox) -> None:
    daemon = "if os.fork() == 0:\n  os.setsid(); print('up', flush=True); time.sleep(60)"
    code = f"import os, time\n{daemon}\ntime.sleep(0.2)"
    with start(sandbox, code) as job:
        outcome = job.wait(timeout=20)
        assert (outcome.kind, outcome.output) == ("exited", b"up\n")
        assert not ours()


@pytest.mark.parametrize("kind", ["choose()", "NoIsolation()"])
def test_a_killed_parent_takes_the_tree_with_it(sandbox: Sandbox, kind: str) -> None:
    code = f"""
import sys, threading
from pathlib import Path
from trainer.sandbox import *
from trainer.sandbox.host import NoIsolation
def begin():  # the thread that starts a job may end before the job
    global job
    job = {kind}.start([sys.executable, "-c", {SLEEP!r}], limits=JobLimits(60, 1 << 30),
                       tools=interpreter_prefixes(Path(sys.executable)))
thread = threading.Thread(target=begin)
thread.start(); thread.join()
while b"up" not in job.output: pass
print("up", flush=True)
job.wait()
"""
    parent = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    tree = descendants(parent.pid)[1:]
    assert tree
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until(lambda: not [pid for pid in tree if is_alive(pid)])


# --- what comes out -------------------------------------------------------------------------------------


def test_messages_are_stamped_and_results_wait_for_death(sandbox: Sandbox) -> None:
    code = "import os; open('/tmp/r', 'wb').write(b'1234'); os.write(3, b'frozen\\nagain\\nhalf')"
    with start(sandbox, code + SLEEP) as job:
        first, second = job.messages(2, timeout=20)
        assert (first.line, second.line) == (b"frozen", b"again")
        assert 0 < first.seconds <= second.seconds < 20
        with pytest.raises(RuntimeError):
            job.result("r", 4)
        with pytest.raises(TimeoutError):
            job.wait(timeout=0)
        assert job.kill().seconds >= second.seconds
        assert len(job.messages(9)) == 2  # no longer waits
        assert job.result("r", 4) == b"1234"
    with pytest.raises(RuntimeError):
        job.result("r", 4)


def both(request: pytest.FixtureRequest) -> Sandbox:
    chosen: Sandbox = request.getfixturevalue("sandbox") if request.param == "sandbox" else NoIsolation()
    return chosen


either = pytest.fixture(params=["sandbox", "none"])(both)


def test_results_that_are_no_plain_files(either: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    code = """
import os, sys
os.chdir(os.environ["SCRATCH"])
open("good", "wb").write(b"1234")
open("sparse", "wb").truncate(1 << 22)
os.symlink(sys.argv[1], "link")
os.symlink("good", "inner")
os.mkfifo("fifo")
os.mkdir("folder")
open("folder/file", "w")
"""
    with start(either, code, str(secret)) as job:
        outcome = job.wait()
        assert outcome.exit_code == 0, outcome
        assert job.result("good", 4) == b"1234"
        assert len(job.result("sparse", 1 << 22)) == 1 << 22
        for name, limit in {
            "good": 3,
            "sparse": 99,
            "link": 99,
            "inner": 99,
            "fifo": 99,
            "folder": 99,
            "no": 9,
        }.items():
            with pytest.raises(UntrustedResult):
                job.result(name, limit)
        for name in ("folder/file", "..", ".", "", "a\0", str(secret)):
            with pytest.raises(ValueError, match="plain file name"):
                job.result(name, 99)


def test_a_scratch_that_begins_with_files_and_all_that_is_left_in_it(either: Sandbox, tmp_path: Path) -> None:
    given = tmp_path / "given"
    (given / "kept" / "deep").mkdir(parents=True)
    (given / "kept" / "a").write_bytes(b"1")
    (given / "kept" / "deep" / "b").write_bytes(b"23")
    code = """
import os
os.chdir(os.environ["SCRATCH"])
os.remove("kept/a")
with open("kept/deep/b", "ab") as file:
    file.write(b"4")
for name in ("link", "pipe"):
    os.mkdir(name)
os.symlink("../kept", "link/inner")
os.symlink("kept", "outer")
os.mkfifo("pipe/x")
"""
    with either.start([str(PYTHON), "-c", code], limits=LIMITS, tools=TOOLS, scratch=given) as job:
        outcome = job.wait()
        assert outcome.exit_code == 0, outcome
        assert job.results("kept", 9, 99) == {"kept/deep/b": b"234"}
        assert job.results("none", 9, 99) == {}
        assert job.results("link", 9, 99) == {}  # a link to a folder is not followed
        for name, files, size in (("kept", 0, 99), ("kept", 9, 2), ("pipe", 9, 99)):
            with pytest.raises(UntrustedResult):
                job.results(name, files, size)
        assert job.results("outer", 9, 99) == {}
    assert (given / "kept" / "a").read_bytes() == b"1"


def test_exit_codes(either: Sandbox) -> None:
    for code, expected in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 11)", 139)):
        with start(either, code) as job:
            outcome = job.wait()
        assert (outcome.kind, outcome.exit_code) == ("exited", expected)


# --- without isolation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hang", "output", "channel", "memory"])
def test_no_isolation_keeps_the_limits_it_can(name: str) -> None:
    code, changes, kind = BOMBS[name]
    with start(NoIsolation(), code, limits=with_limits(**changes)) as job:
        assert job.wait(timeout=25).kind == kind


def test_no_isolation_says_so_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("input")
    code = "import os; print(open('in/data.txt').read(), os.getcwd(), os.environ.get('HOME'))"
    with start(NoIsolation(), code, mounts=[Mount(tmp_path / "data.txt", "in/data.txt")]) as job:
        text, folder, home = job.wait().output.decode().split()
        assert (NoIsolation().name, text, home) == ("none", "input", f"{folder}/scratch")
        assert os.path.isdir(folder)
    assert not os.path.exists(folder)
    assert "none: MLX" in probe(NoIsolation())


def test_folder_usage_is_not_fooled_by_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "file").write_bytes(bytes(8192))
    (tmp_path / "link").symlink_to("/")
    assert folder_usage(handle) == (8192, 2)
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    assert folder_usage(handle)[1] >= 1502  # Python before 3.13 gives up at some depth, which is excess
    os.close(handle)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


# --- what stops a start ---------------------------------------------------------------------------------


def test_a_start_that_fails_says_why(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(EnvironmentNotReady, match="does not exist"):
        start(sandbox, "", mounts=[Mount(tmp_path / "no", "in")])
    with pytest.raises(EnvironmentNotReady, match="folder of its own"):
        sandbox.start([str(PYTHON)], limits=LIMITS, tools=[Path.home()])
    with pytest.raises(ValueError, match="relative"):
        start(sandbox, "", mounts=[Mount(tmp_path, "../in")])
    with pytest.raises(ValueError, match="not free"):
        start(sandbox, "", mounts=[Mount(tmp_path, "scratch/in")])
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentNotReady, match=r"No permissions.*sysctl"):
        start(sandbox, "")
    fake.unlink()
    with pytest.raises(EnvironmentNotReady, match="apt-get install bubblewrap"):
        start(sandbox, "")
    assert set(os.listdir("/proc/self/fd")) <= before


def test_jobs_leave_no_descriptors_and_threads(sandbox: Sandbox) -> None:
    run(sandbox, "")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(sandbox, "print(1)")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_probe_fails_closed(sandbox: Sandbox, tmp_path: Path) -> None:
    """A Python without MLX."""
    base = Path(os.path.realpath(sys.executable))
    with pytest.raises(EnvironmentNotReady, match="No module named 'mlx'"):
        probe(sandbox, base)


# --- pure parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "usage", "kind"),
    [
        (1, TreeUsage(1, 1, 1, 1), None),
        (30, TreeUsage(256 << 20, 64, 16 << 20, SCRATCH_FILES), None),
        (30.1, TreeUsage(1, 1, 1, 1), "killed_wall"),
        (1, TreeUsage((256 << 20) + 1, 1, 1, 1), "killed_memory"),
        (1, TreeUsage(1, 65, 1, 1), "killed_processes"),
        (1, TreeUsage(1, 1, (16 << 20) + 1, 1), "killed_scratch"),
        (1, TreeUsage(1, 1, 1, SCRATCH_FILES + 1), "killed_scratch"),
    ],
)
def test_exceeded(seconds: float, usage: TreeUsage, kind: str | None) -> None:
    assert exceeded(LIMITS, seconds, usage) == kind


def test_targets_and_prefixes(tmp_path: Path) -> None:
    assert relative("in//a/./b") == "in/a/b"
    for bad in ("/in", "a/../../b", "..", "a\0b"):
        with pytest.raises(ValueError, match="relative"):
            relative(bad)
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert prefixes([link]) == [(str(real), str(link)), (str(real), str(real))]
    for bad_prefix in (Path("/"), Path.home(), Path.home().parent, tmp_path / "no"):
        with pytest.raises(EnvironmentNotReady):
            prefixes([bad_prefix])


def test_interpreter_prefixes_follow_a_virtual_environment(tmp_path: Path) -> None:
    base, venv = tmp_path / "base", tmp_path / "venv"
    (base / "bin").mkdir(parents=True)
    (base / "bin" / "python3").touch()
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(base / "bin" / "python3")
    (tmp_path / "named").symlink_to(base)
    (venv / "pyvenv.cfg").write_text(f"home = {tmp_path}/named/bin\nversion = 3\n")
    assert interpreter_prefixes(venv / "bin" / "python") == (venv, base, tmp_path / "named")


def test_bubblewrap_options(tmp_path: Path) -> None:
    found = options([Mount(tmp_path, "in")], [Path("/usr")], 4096, cuda=False, fixed={"/proc/uptime": 9})
    words = " ".join(found)
    assert words.startswith(
        "--unshare-all --unshare-user --disable-userns --cap-drop ALL --new-session --die-with-parent "
        "--clearenv --uid 65534 --gid 65534"
    )
    assert f"--ro-bind {tmp_path} /job/in" in words
    assert "--size 4096 --perms 0700 --tmpfs /job/scratch" in words
    assert words.endswith("--ro-bind-data 9 /proc/uptime --symlink /job/scratch /tmp --remount-ro /")
    with tempfile.TemporaryDirectory(dir="/tmp") as tool:
        below = " ".join(options([], [Path(tool)], 4096, cuda=False, fixed={}))
    assert "--size 4096 --perms 0700 --tmpfs /tmp " in below
    assert "--symlink /tmp /job/scratch" in below
    assert found[-2:] == ["--remount-ro", "/"]
    assert not {"--bind", "--dev-bind", "--share-net", "--setenv"} & set(found)
    assert "for device in /dev/null /dev/zero; do mount" in protected("bwrap", ["/dev/null", "/dev/zero"])[6]


def test_resource_limits() -> None:
    caps = resource_limits(LIMITS, "6.1.0-13-amd64", cuda=False)
    assert caps["RLIMIT_NPROC"] == 66
    assert caps["RLIMIT_CORE"] == 0
    assert caps["RLIMIT_DATA"] == (512 << 20) + (1 << 30)
    assert "RLIMIT_CPU" not in caps
    assert "RLIMIT_NPROC" not in resource_limits(LIMITS, "5.10.0", cuda=False)
    assert "RLIMIT_DATA" not in resource_limits(LIMITS, "6.1.0", cuda=True)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("bwrap: Unknown option --disable-userns", "bubblewrap 0.8"),
        ("bwrap: No permissions to create new namespace", "user.max_user_namespaces"),
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "systempaths=unconfined"),
        ("something new", "bwrap --unshare-all"),
    ],
)
def test_cure(words: str, advice: str) -> None:
    assert advice in cure(words)


# --- the filter -----------------------------------------------------------------------------------------


def answer(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run a filter as the kernel would (linux/filter.h), on little-endian struct seccomp_data."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments, *(0 for _ in range(6 - len(arguments))))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, yes, no, operand = instructions[at]
        at += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        else:
            tests = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }
            at += yes if tests[code] else no


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_filter(machine: str, column: int) -> None:
    program, arch = seccomp.program(machine), seccomp.AUDIT_ARCH[machine]
    other = next(value for name, value in seccomp.AUDIT_ARCH.items() if name != machine)
    assert answer(program, other, 0) == seccomp.KILL_PROCESS
    for numbers in (*seccomp.DENIED.values(), seccomp.MEMFD_CREATE):
        if (number := numbers[column]) is not None:
            assert answer(program, arch, number) == seccomp.DENY
    everyday = {
        "read": (0, 63),
        "openat": (257, 56),
        "mmap": (9, 222),
        "futex": (202, 98),
        "execve": (59, 221),
    }
    for numbers in everyday.values():
        assert answer(program, arch, numbers[column]) == seccomp.ALLOW
    assert answer(program, arch, seccomp.CLONE3[column]) == seccomp.MISSING
    assert answer(program, arch, seccomp.NEWEST + 1) == seccomp.MISSING
    assert answer(program, arch, seccomp.CLONE[column], 0x3D0F00) == seccomp.ALLOW  # pthread_create
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(program, arch, seccomp.CLONE[column], 0x11 | bit) == seccomp.DENY
    families = {1: seccomp.ALLOW, 2: seccomp.DENY, 10: seccomp.DENY, 16: seccomp.DENY, 40: seccomp.DENY}
    for family, expected in families.items():
        assert answer(program, arch, seccomp.SOCKET[column], family) == expected
    for request, expected in {0x5401: seccomp.ALLOW, 0x5412: seccomp.DENY, 0x541C: seccomp.DENY}.items():
        assert answer(program, arch, seccomp.IOCTL[column], 0, request) == expected
        assert answer(program, arch, seccomp.IOCTL[column], 0, request | 1 << 32) == expected
    if machine == "x86_64":
        assert answer(program, arch, 0x40000000) == seccomp.DENY
    assert answer(seccomp.program(machine, memfd=True), arch, seccomp.MEMFD_CREATE[column]) == seccomp.ALLOW


def header_numbers(path: Path) -> Iterator[tuple[str, int]]:
    for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()):
        yield name, int(number)


@pytest.mark.parametrize(
    ("header", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)],
)
def test_filter_numbers_are_the_kernel_s(header: str, column: int) -> None:
    path = Path("/usr/include") / header
    require(path.is_file(), f"{path} (apt-get install linux-libc-dev)")
    known = dict(header_numbers(path))
    for name, numbers in seccomp.DENIED.items():
        assert known.get(name, numbers[column]) == numbers[column], name
    special = {
        "memfd_create": seccomp.MEMFD_CREATE,
        "clone": seccomp.CLONE,
        "clone3": seccomp.CLONE3,
        "socket": seccomp.SOCKET,
        "ioctl": seccomp.IOCTL,
    }
    for name, pair in special.items():
        assert known[name] == pair[column]
