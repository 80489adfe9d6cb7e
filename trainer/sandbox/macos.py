"""The macOS sandbox: seatbelt through sandbox-exec, because containers cannot reach Metal.

Not yet run on hardware. The profile is written out from what others measured and published (Mozilla's policy for its
inference process, and several projects that run MLX): it imports nothing, because system.sb opens user accounts,
preferences, /cores and every XPC service. Its text is tested against a model of seatbelt's rules, and the proof of
`trainer.sandbox` must pass on the machine itself before anything is trusted to it, so that a wrong rule fails closed.

`(deny default)` leaves some operations open, among them other processes' arguments and environments, so these are
denied by name, and what must stay is opened again after. There are no pid namespaces: fork is denied, so one process
is the whole tree. No limit of the kernel holds memory (RLIMIT_AS and RLIMIT_DATA do not work with Metal, which reserves
hundreds of GiB, and taskpolicy's cap ends with the first exec): the footprint is polled, as is the scratch, a private
folder of the host.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from trainer.errors import EnvironmentNotReady
from trainer.machine.faults import GPU_PATIENCE
from trainer.machine.hardware import run_tool
from trainer.sandbox.entry import prefixes, sources
from trainer.sandbox.host import start_in_folder
from trainer.sandbox.job import Job, JobLimits, LastWord, Mount
from trainer.sandbox.proof import STARTS, cause

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
_SYSTEM: Final = ("/System/Library", "/System/Cryptexes", "/System/Volumes/Preboot/Cryptexes", "/usr/lib")
_READABLE: Final = ("/usr/share", "/Library/GPUBundles", "/private/var/db/dyld", "/dev/fd")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SETTINGS: Final = (
    *("kern.argmax", "kern.hostname", "kern.maxfilesperproc", "kern.osproductversion", "kern.osrelease"),
    *(
        "kern.ostype",
        "kern.osvariant_status",
        "kern.osversion",
        "kern.secure_kernel",
        "kern.usrstack64",
        "kern.version",
    ),
    "sysctl.proc_translated",
)
_GPU_CLIENTS: Final = ("AGXDeviceUserClient", "IOAccelerationUserClient", "IOSurfaceRootUserClient")
_GPU_FACTS: Final = (
    *("vendor-id", "device-id", "IOVARendererID", "MetalPluginName", "MetalPluginClassName", "gpu-core-count"),
    *("model", "soc-generation", "GPUConfigurationVariable", "IOGLBundleName", "IORegistryEntryPropertyKeys"),
)
_COMPILER: Final = "com.apple.MTLCompilerService"
_MOST_LIBRARIES: Final = 64
_IMAGES: Final = """
import ctypes, importlib, json
for name in ("bz2", "ctypes", "hashlib", "lzma", "sqlite3", "ssl", "uuid", "zlib"):
    try: importlib.import_module(name)
    except ImportError: pass
dyld = ctypes.CDLL(None)
dyld._dyld_get_image_name.restype = ctypes.c_char_p
print(json.dumps([dyld._dyld_get_image_name(n).decode() for n in range(dyld._dyld_image_count())]))
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _rules(allowed: str, kind: str, values: Iterable[str]) -> list[str]:
    return [f"(allow {allowed} ({kind} {_quoted(value)}))" for value in values]


def profile(job: str, tools: Sequence[str], inputs: Sequence[str], libraries: Sequence[str] = ()) -> str:
    """The seatbelt profile of a job in folder `job`, given the real paths of its interpreter and inputs, and of
    `libraries` outside the interpreter's prefix. Of two rules that match, the later counts.
    """
    code = sorted({*tools, *libraries})
    readable = sorted({job, *code, *inputs})
    parents = sorted({str(parent) for path in readable for parent in PurePosixPath(path).parents} - {"/"})
    rules = [
        "(version 1)",
        "(deny default)",
        # left open by the line above
        "(deny file-map-executable)",
        "(deny iokit-get-properties)",
        "(deny mach-task-name)",
        "(deny nvram*)",
        "(deny process-info*)",
        "(deny sysctl-read)",
        # the system, without which nothing starts
        *_rules("file-read*", "literal", ("/", *_DEVICES)),
        *_rules("file-read*", "subpath", (*_SYSTEM, *_READABLE)),  # inside.py lists /dev/fd
        *_rules("file-map-executable", "subpath", (*_SYSTEM, *code)),
        *_rules("sysctl-read", "sysctl-name", _SETTINGS),
        *_rules("sysctl-read", "sysctl-name-prefix", ("hw.", "machdep.cpu.")),
        "(allow process-info* (target self))",
        "(allow signal (target self))",
        # this job
        *_rules("process-exec", "subpath", sorted(set(tools))),
        *_rules("file-read-metadata", "literal", parents),
        *_rules("file-read*", "subpath", readable),
        *_rules("file-write*", "subpath", [job + "/scratch"]),
        # Metal
        '(allow iokit-open (iokit-connection "IOAccelerator"))',
        *_rules("iokit-open", "iokit-user-client-class", _GPU_CLIENTS),
        *_rules("iokit-get-properties", "iokit-property", _GPU_FACTS),
        *_rules("mach-lookup", "global-name", [_COMPILER]),
        *_rules("mach-lookup", "xpc-service-name", [_COMPILER]),
        # never, whatever is above
        '(deny sysctl-read (sysctl-name "kern.procargs") (sysctl-name "kern.procargs2"))',
        "(deny process-fork)",
        "(deny network*)",
    ]
    return "\n".join(rules) + "\n"


def outside(images: Sequence[str], tools: Sequence[str]) -> list[str]:
    """Of the libraries that an interpreter loads, those in neither the system nor `tools`, by every name; pure but for
    links. EnvironmentNotReady if they are more than an interpreter has.
    """
    found = set()
    for image in images:
        if image.startswith("/") and not any(PurePosixPath(image).is_relative_to(tool) for tool in (*_SYSTEM, *tools)):
            found |= {image, os.path.realpath(image)}
    if len(found) > _MOST_LIBRARIES:
        raise EnvironmentNotReady(
            f"Python links {len(found)} libraries outside its own folder.", "Use uv's own Python: --managed-python."
        )
    return sorted(found)


@functools.cache
def _images(python: str) -> tuple[str, ...]:
    """The libraries that an interpreter loads by itself: pyenv's, mise's and Homebrew's link some of others."""
    said = run_tool(python, "-I", "-S", "-c", _IMAGES)
    try:
        return tuple(str(name) for name in json.loads(said))
    except (ValueError, TypeError):
        return ()


def denials(minutes: int = 2) -> list[str]:
    """What seatbelt refused to Python lately, from the system's log: operation and object, without the user's name."""
    where = 'process == "kernel" AND eventMessage CONTAINS "Sandbox: python"'
    command = ("log", "show", "--last", f"{minutes}m", "--style", "compact", "--predicate", where)
    return denied(run_tool(*command, seconds=60), str(Path.home()))


def denied(log: str, home: str) -> list[str]:
    """The refusals in the log's text, each once, at most 100."""
    found = re.findall(r"Sandbox: python[\w.]*\(\d+\) deny\(\d+\) ([a-z*-]{3,40}[^\n]{0,200})", log, re.IGNORECASE)
    return list(dict.fromkeys(words.replace(home, "~").strip() for words in found))[:100]


@dataclass(frozen=True, slots=True)
class Seatbelt:
    """The sandbox of `trainer.sandbox.Sandbox` on macOS."""

    name: str = "seatbelt"

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
        if not os.access(SANDBOX_EXEC, os.X_OK):
            raise EnvironmentNotReady(f"Untrusted code runs under {SANDBOX_EXEC}, which does not exist.", "Use macOS.")
        named = [path for pair in prefixes(tools) for path in pair]
        inputs = [source for source, _ in sources(mounts)]
        libraries = outside(_images(argv[0]), named)

        def wrapper(folder: Path) -> list[str]:
            return [SANDBOX_EXEC, "-p", profile(str(folder), named, inputs, libraries)]

        return start_in_folder(
            wrapper,
            argv,
            limits,
            mounts,
            {**GPU_PATIENCE, **(env or {})},
            cwd,
            last_word,
            scratch,
            cure=lambda words: cause(STARTS, words, ""),
        )
