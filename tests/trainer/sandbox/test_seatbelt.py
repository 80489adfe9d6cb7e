"""The macOS profile against a model of seatbelt, the macOS sandbox with stand-ins, and each line of its proof."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import mac_only, require
from tests.trainer.sandbox.seatbelt import allows, parse
from trainer.errors import EnvironmentNotReady
from trainer.machine import hardware
from trainer.sandbox import JobLimits, JobOutcome, Line, choose, examine, interpreter_prefixes, macos, probe, proof
from trainer.sandbox.host import NoIsolation
from trainer.sandbox.macos import Seatbelt, denied, outside, profile
from trainer.sandbox.proof import CONFINED, NEEDED, cause, judge

JOB, VENV, BASE = "/private/var/folders/x/sandbox-1", "/Users/a/.armlx/envs/1/venv", "/Users/a/.local/share/uv/python/3"
DATA, LIBRARY = "/Users/a/.armlx/data/shard.parquet", "/opt/homebrew/opt/gettext/lib/libintl.8.dylib"
TEXT = profile(JOB, [VENV, BASE], [DATA], [LIBRARY])

NEEDS = [
    ("file-read-data", "path", "/"),  # without it every exec ends in SIGABRT
    *[("file-read-data", "path", f"/dev/{name}") for name in ("null", "zero", "random", "urandom", "fd")],
    ("file-read-data", "path", "/System/Library/Frameworks/Metal.framework/Metal"),
    ("file-map-executable", "path", "/System/Library/Extensions/AGXMetalG16X.bundle/AGXMetalG16X"),
    ("file-read-data", "path", "/System/Cryptexes/OS/usr/lib/libSystem.B.dylib"),
    ("file-map-executable", "path", "/System/Cryptexes/OS/usr/lib/libSystem.B.dylib"),
    ("file-read-data", "path", "/System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e"),
    (
        "file-map-executable",
        "path",
        "/System/Volumes/Preboot/Cryptexes/OS/System/Library/dyld/dyld_shared_cache_arm64e",
    ),
    ("file-read-data", "path", "/usr/lib/libobjc.A.dylib"),
    ("file-map-executable", "path", "/usr/lib/libobjc.A.dylib"),
    ("file-read-data", "path", "/usr/share/icu/icudt74l.dat"),
    ("file-read-data", "path", "/Library/GPUBundles/x.bundle"),
    ("file-read-data", "path", "/private/var/db/dyld/dyld_shared_cache_arm64e"),
    *[("process-exec", "path", f"{place}/bin/python") for place in (VENV, BASE)],
    *[("file-read-data", "path", f"{place}/lib/python3.12/os.py") for place in (VENV, BASE)],
    *[("file-map-executable", "path", f"{place}/lib/libmlx.dylib") for place in (VENV, BASE)],
    ("file-read-data", "path", LIBRARY),
    ("file-map-executable", "path", LIBRARY),
    ("file-read-data", "path", DATA),
    ("file-read-data", "path", f"{JOB}/scratch/graph.mlxfn"),
    ("file-write-create", "path", f"{JOB}/scratch/graph.mlxfn"),
    ("signal", "target", "self"),
    ("process-info-pidinfo", "target", "self"),
    ("sysctl-read", "sysctl-name", "hw.perflevel0.logicalcpu"),
    ("sysctl-read", "sysctl-name", "machdep.cpu.brand_string"),
    *[("sysctl-read", "sysctl-name", name) for name in macos._SETTINGS],
    ("iokit-open", "iokit-connection", "IOAccelerator"),
    *[("iokit-open", "iokit-user-client-class", name) for name in macos._GPU_CLIENTS],
    *[("iokit-get-properties", "iokit-property", name) for name in macos._GPU_FACTS],
    ("mach-lookup", "global-name", "com.apple.MTLCompilerService"),
    ("mach-lookup", "xpc-service-name", "com.apple.MTLCompilerService"),
    *[
        ("file-read-metadata", "path", place)
        for place in {str(p) for path in (JOB, VENV, BASE, DATA, LIBRARY) for p in Path(path).parents}
    ],
]
LEAKS = [
    ("sysctl-read", "sysctl-name", "kern.procargs2"),  # arguments and environments of all the user's processes
    ("sysctl-read", "sysctl-name", "kern.procargs"),
    ("sysctl-read", "sysctl-name", "kern.proc.all"),
    ("sysctl-read", "sysctl-name", "kern.bootsessionuuid"),
    ("process-info-pidinfo", "target", "others"),
    ("process-info-listpids", "", ""),
    ("nvram-get", "nvram-variable", "x"),
    ("iokit-get-properties", "iokit-property", "IOPlatformSerialNumber"),
    ("iokit-get-properties", "iokit-property", "IOPlatformUUID"),
    ("mach-task-name", "target", "others"),
    ("file-map-executable", "path", f"{JOB}/scratch/own.dylib"),
    ("signal", "target", "others"),
    ("process-fork", "", ""),
    ("process-exec", "path", "/usr/bin/true"),
    ("process-exec", "path", "/bin/sh"),
    ("process-exec", "path", f"{JOB}/scratch/program"),
    *[("network-outbound", "remote", place) for place in ("tcp", "unix-socket")],
    ("network-bind", "local", "tcp"),
    ("file-read-data", "path", "/Users/a/.ssh/id_ed25519"),
    ("file-read-data", "path", "/Users/a"),
    ("file-read-data", "path", "/Users/a/.armlx/wallets/miner.json"),
    ("file-read-data", "path", "/System/Volumes/Data/Users/a/.ssh/id_ed25519"),
    ("file-read-data", "path", "/private/etc/master.passwd"),
    ("file-read-data", "path", "/private/tmp/other"),
    ("file-write-create", "path", "/cores/core.1"),
    ("file-write-data", "path", DATA),
    ("file-write-create", "path", f"{JOB}/input"),
    ("file-write-create", "path", "/private/tmp/x"),
    ("file-write-data", "path", f"{VENV}/bin/python"),
    *[
        ("mach-lookup", kind, name)
        for kind, name in (
            ("global-name", "com.apple.system.opendirectoryd.libinfo"),
            ("global-name", "com.apple.cfprefsd.daemon"),
            ("global-name", "com.apple.trustd"),
            ("global-name", "com.apple.diagnosticd"),
            ("global-name", "com.apple.pasteboard.1"),
            ("global-name", "com.apple.SecurityServer"),
            ("xpc-service-name", "com.apple.hiservices-xpcservice"),
        )
    ],
    ("iokit-open", "iokit-user-client-class", "IOHIDParamUserClient"),
    ("ipc-posix-shm-read-data", "ipc-posix-name", "apple.cfprefs.501v1"),
]


@pytest.mark.parametrize("wanted", sorted(set(NEEDS)), ids=lambda wanted: " ".join(wanted))
def test_what_python_and_metal_need(wanted: tuple[str, str, str]) -> None:
    assert allows(parse(TEXT), *wanted)


@pytest.mark.parametrize("leak", sorted(set(LEAKS)), ids=lambda leak: " ".join(leak))
def test_what_must_not_leak(leak: tuple[str, str, str]) -> None:
    assert not allows(parse(TEXT), *leak)


def test_every_rule_counts() -> None:
    """Without any one allowed thing something needed is refused; without the denials that version 1 needs, it leaks."""
    rules = parse(TEXT)
    for number, rule in enumerate(rules):
        rest = [*rules[:number], *rules[number + 1 :]]
        if rule.allow:
            assert not all(allows(rest, *wanted) for wanted in NEEDS), rule
    for operation in ("file-map-executable", "iokit-get-properties", "mach-task-name", "nvram*", "process-info*"):
        rest = [rule for rule in rules if rule.allow or rule.operation != operation]
        assert any(allows(rest, *leak) for leak in LEAKS), operation


def test_the_profile_that_imported_the_systems_leaked() -> None:
    """What was there before: `sysctl-read` without a name, and none of what version 1 leaves open."""
    before = parse('(version 1)\n(deny default)\n(allow sysctl-read)\n(allow file-read* (subpath "/usr/lib"))\n')
    for leak in (LEAKS[0], ("process-info-pidinfo", "target", "others"), ("nvram-get", "nvram-variable", "x")):
        assert allows(before, *leak)


def test_paths_cannot_add_rules() -> None:
    evil = '/data/a"))(allow default)(deny x (literal "\\'
    (rule,) = [rule for rule in parse(profile(JOB, [VENV], [evil])) if rule.filters == (("subpath", evil),)]
    assert (rule.allow, rule.operation) == (True, "file-read*")
    assert "import" not in TEXT


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ([f"{BASE}/lib/libpython3.12.dylib", "/usr/lib/libSystem.B.dylib", "/System/Library/x"], []),
        ([LIBRARY, f"{VENV}/x.so"], [LIBRARY]),  # pyenv's and mise's Python
        (["@rpath/x.dylib"], []),
    ],
)
def test_libraries_outside_the_interpreters_folder(images: list[str], found: list[str]) -> None:
    assert outside(images, [VENV, BASE]) == found


def test_too_many_libraries_are_no_interpreter() -> None:
    with pytest.raises(EnvironmentNotReady, match="--managed-python"):
        outside([f"/opt/lib/{n}.dylib" for n in range(65)], [VENV])


def test_what_the_system_refused_is_told_without_the_users_name() -> None:
    log = (
        "2026-11-28 19:00:01.1 E  kernel[0:1a] (Sandbox) Sandbox: python3.12(712) deny(1) iokit-open-user-client X\n"
        "2026-11-28 19:00:01.2 E  kernel[0:1a] (Sandbox) Sandbox: python3.12(712) deny(1) file-read-data /Users/a/x\n"
        "2026-11-28 19:00:01.3 E  kernel[0:1a] (Sandbox) Sandbox: python3.12(712) deny(1) file-read-data /Users/a/x\n"
        "2026-11-28 19:00:01.4 E  kernel[0:1a] (Sandbox) Sandbox: Mail(9) deny(1) file-read-data /Users/a/secret\n"
    )
    assert denied(log, "/Users/a") == ["iokit-open-user-client X", "file-read-data ~/x"]


# --- the sandbox, with stand-ins of the system's tools ---


@pytest.fixture
def darwin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Darwin whose sandbox-exec is a script in this folder that runs what it is given, unconfined."""
    tool = tmp_path / "sandbox-exec"
    tool.write_text('#!/bin/sh\n[ "$1" = -p ] || exit 64\nprintf %s "$2" > "${0%/*}/profile"\nshift 2; exec "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setattr(macos, "SANDBOX_EXEC", str(tool))
    monkeypatch.setattr(macos, "_images", lambda python: ())
    return tmp_path


LIMITS = JobLimits(wall_seconds=60, memory_bytes=1 << 30)


def test_a_job_gets_its_profile_and_patience_with_the_gpu(darwin: Path) -> None:
    tools = interpreter_prefixes(Path(sys.executable))
    code = "import os; print(os.environ['AGX_RELAX_CDM_CTXSTORE_TIMEOUT'], os.getcwd())"
    with Seatbelt().start([sys.executable, "-c", code], limits=LIMITS, tools=tools) as job:
        outcome = job.wait()
    one, folder = outcome.output.decode().split()
    assert (outcome.exit_code, one) == (0, "1")
    rules = parse((darwin / "profile").read_text())
    assert allows(rules, "process-exec", "path", sys.executable)
    assert allows(rules, "file-write-create", "path", f"{os.path.realpath(folder)}/scratch/x")
    assert not allows(rules, "file-read-data", "path", str(Path.home() / ".ssh/id"))


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("sandbox-exec: sandbox_apply: Operation not permitted", "Terminal.app"),
        ("dyld: Library not loaded: /opt/homebrew/opt/gettext/lib/libintl.8.dylib", "--managed-python"),
        ("mach-o file, but is an incompatible architecture (have x86_64)", "arm64"),
        ("sandbox-exec: unbound variable: sysctl-name-prefix", "miner doctor"),
    ],
)
def test_a_sandbox_that_does_not_come_up_says_why(
    words: str, advice: str, darwin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(hardware, "run_tool", lambda *_, **__: "Apple M4 Max\n")
    (darwin / "sandbox-exec").write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 71\n")
    with pytest.raises(EnvironmentNotReady, match=advice) as caught:
        probe(Seatbelt())
    assert words in caught.value.problem


def test_a_sandbox_that_confines_nothing_does_not_pass(darwin: Path) -> None:
    """Each line is tried, and each finds that it does not hold."""
    found = {line.key: line for line in examine(Seatbelt())}
    broken = {key for key, line in found.items() if not line.holds}
    assert broken >= set(CONFINED) - {"starting"}, found
    assert all(found[key].holds for key in NEEDED), found
    assert "listener" in found["network"].found


# --- the proof: one line at a time ---

GOOD: Mapping[str, str] = dict.fromkeys((*CONFINED, *NEEDED), "")
ENDED = JobOutcome("exited", 0, 1.0, b"", False)


def judged(found: Any, outcome: JobOutcome = ENDED, done: Mapping[str, str] | None = None) -> list[Line]:
    return [line for line in judge(outcome, found, [*CONFINED, *NEEDED], done or {}, "") if not line.holds]


def test_all_lines_hold() -> None:
    assert judged(GOOD) == []


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("how", ["found", "missing", "nonsense"])
def test_one_line_that_does_not_hold_is_named(key: str, how: str) -> None:
    changed: dict[str, Any] = dict(GOOD)
    if how == "missing":
        del changed[key]
    else:
        changed[key] = "it leaked" if how == "found" else None
    (line,) = judged(changed)
    assert (line.key, line.cause != "", line.name != "") == (key, True, True)


@pytest.mark.parametrize("key", ["network", "writing"])
def test_what_was_done_outside_counts_whatever_is_said_inside(key: str) -> None:
    (line,) = judged(GOOD, done={key: "it was reached"})
    assert (line.key, line.found) == (key, "it was reached")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (JobOutcome("exited", 134, 0.1, b"", False), "status 134: no output"),  # SIGABRT: a rule that exec needs
        (JobOutcome("exited", 1, 0.1, b"x\nModuleNotFoundError: No module named 'mlx'\n", False), "No module named"),
        (JobOutcome("killed_wall", -1, 120.0, b"", False), "killed wall"),
    ],
)
def test_a_proof_that_did_not_end_well(outcome: JobOutcome, words: str) -> None:
    (line,) = judged(GOOD, outcome)
    assert line.key == "starts"
    assert words in line.found
    assert [line.key for line in judged(None)] == ["starts"]


@pytest.mark.parametrize(
    ("key", "context", "advice"),
    [
        ("device", "this is a virtual machine (Apple M1 (Virtual))", "virtual machine"),
        ("starts", "Python runs under Rosetta", "Rosetta"),
        ("device", "", "miner doctor"),
        ("network", "", "nobody's code"),
        ("imports", "", "miner doctor"),
    ],
)
def test_causes(key: str, context: str, advice: str) -> None:
    assert advice in cause(key, "", context, system="Darwin")


def test_this_machines_own_sandbox_passes_and_imports_the_harness() -> None:
    require(sys.platform == "darwin" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    lines = examine(choose(), harness=b"import mlx.core, pyarrow.parquet, tokenizers\n")
    assert [line for line in lines if not line.holds] == []
    (line,) = [line for line in examine(choose(), harness=b"import nothing_of_that_name\n") if not line.holds]
    assert line.key == "harness"


def test_without_isolation_only_what_is_needed_is_asked() -> None:
    assert [line.key for line in examine(NoIsolation())] == ["starts", *NEEDED]
    assert json.loads(json.dumps(list(CONFINED)))


@mac_only
def test_seatbelt_holds_on_this_mac() -> None:
    lines = examine(choose())
    assert [(line.name, line.found) for line in lines if not line.holds] == []


@mac_only
def test_the_log_of_what_was_refused_can_be_read() -> None:
    assert isinstance(macos.denials(1), list)
    assert proof.STARTS == "starts"
