"""Tries from inside a sandbox what must not be possible there, and what must: python -c SOURCE ORDER

ORDER is the JSON of `proof.py`. Into the scratch: proof.json, for each line "" where it holds, else what was found. A
line that is missing does not hold. Every line stands alone, so that one that is refused says nothing of the others.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

ORDER: dict[str, Any] = json.loads(sys.argv[1])
DARWIN = sys.platform == "darwin"


def refused(attempt: Callable[..., object], *arguments: object) -> bool:
    """Whether the system refuses an attempt."""
    try:
        result = attempt(*arguments)
    except OSError:
        return True
    if hasattr(result, "close"):
        result.close()
    return False


def files() -> str:
    """No file of the host."""
    return (
        "" if all(refused(lambda n=name: open(n, "rb")) for name in ORDER["hidden"]) else "a file of the host was read"
    )


def home() -> str:
    """Not the user's folder, which keys lie in."""
    listed = os.listdir if os.path.isdir(ORDER["home"]) else open
    return "" if refused(listed, ORDER["home"]) else "the home folder was read"


def writing() -> str:
    """Nothing outside the scratch, be it a new file, an input or a second name of an input: the parent looks then."""
    second = os.path.join(os.environ["SCRATCH"], "second")
    with contextlib.suppress(OSError):
        os.link(ORDER["input"], second)
    for name in (ORDER["outside"], ORDER["input"], second):
        with contextlib.suppress(OSError), open(name, "ab") as file:
            file.write(b"written")
    return ""


def network() -> str:
    """Not even a listener on this machine."""
    return (
        "" if refused(lambda: socket.create_connection(("127.0.0.1", ORDER["port"]), 2)) else "a listener was reached"
    )


def processes() -> str:
    """Not the arguments and environments of other processes."""
    pid = ORDER["parent"]
    if DARWIN:
        wanted, size = (ctypes.c_int * 3)(1, 49, pid), ctypes.c_size_t(1 << 20)  # CTL_KERN, KERN_PROCARGS2
        buffer = ctypes.create_string_buffer(size.value)
        called = ctypes.CDLL(None).sysctl(wanted, 3, buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
        return "" if called != 0 else "another process's arguments and environment were read"
    for name in ("cmdline", "environ"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            if ORDER["mark"].encode() in file.read():
                return "another process's arguments and environment were read"
    return ""


def signals() -> str:
    """Not to the parent."""
    return "" if refused(os.kill, ORDER["parent"], 0) else "a signal reached the parent"


def starting() -> str:
    """No second process on macOS, where no namespace would end with the first; on Linux a system call filter."""
    if not DARWIN:
        with open("/proc/self/status") as file:
            return "" if "Seccomp:\t2" in file.read() else "all system calls are open"

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    return "" if refused(fork) else "a process was started"


def own_signals() -> str:
    """To itself, as a script that ends itself does."""
    return "it cannot send itself a signal" if refused(os.kill, os.getpid(), 0) else ""


def scratch() -> str:
    """The scratch can be written to."""
    name = os.path.join(os.environ["SCRATCH"], "own")
    return "the scratch cannot be written to" if refused(open, name, "wb") else ""


def device() -> str:
    """MLX computes on the device that it uses outside."""
    import mlx.core as mx

    metal = ORDER["device"] == "metal"
    if metal and not mx.metal.is_available():
        return "Metal is not available"
    kind = mx.cpu if ORDER["device"] == "cpu" else mx.gpu
    found = mx.default_device()
    return "" if not ORDER["device"] or found.type == kind else f"MLX computes on {found}"


def compute() -> str:
    """A small graph, compiled, gives on the device what it gives on the CPU, and what it is."""
    import mlx.core as mx

    def graph(x: Any) -> Any:
        return mx.tanh(x) * mx.exp(x) + mx.sin(x) * 2

    def value(stream: Any, made: Any) -> float:
        with mx.stream(stream):
            x = mx.ones((64, 64)) * mx.linspace(0.5, 1.5, 64)
            total: float = (made(x) @ mx.ones((64, 1))).mean().item()
            return total

    # Compiling for the CPU needs a C++ compiler that this MLX can use, which a machine with a GPU does without.
    there, here = value(mx.default_device(), mx.compile(graph)), value(mx.cpu, graph)
    expected = ORDER["value"]
    if not all(abs(found - expected) <= 1e-3 * expected for found in (there, here)):
        return f"a graph gives {there:.6g} on the device and {here:.6g} on the CPU instead of {expected:.6g}"
    return ""


def imports() -> str:
    """What harnesses need, where the environment has it."""
    import importlib
    from importlib.util import find_spec

    for name in ("numpy", "pyarrow.parquet", "tokenizers"):
        if find_spec(name.partition(".")[0]) is not None:
            try:
                importlib.import_module(name)
            except Exception as error:
                return f"{name}: {type(error).__name__} {error}"[:300]
    return ""


LINES: dict[str, Callable[[], str]] = {
    "files": files,
    "home": home,
    "writing": writing,
    "network": network,
    "processes": processes,
    "signals": signals,
    "starting": starting,
    "own_signals": own_signals,
    "scratch": scratch,
    "device": device,
    "compute": compute,
    "imports": imports,
}


def main() -> None:
    signal.alarm(ORDER["seconds"])
    found = {}
    for name in ORDER["lines"]:
        try:
            found[name] = LINES[name]()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:300]
    with open(os.path.join(os.environ["SCRATCH"], "proof.json"), "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
