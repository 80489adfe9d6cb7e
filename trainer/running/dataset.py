"""A project's prepared data: where it lies, which snapshot it is, and how the project's own prepare.py makes it.

- The snapshot id is found by reading, never by running the harness: where the data has a `manifest.json`, the
  SHA-256 of its canonical JSON, which is what this repository's prepare.py prints; for data of any other harness
  `content_id`, the SHA-256 over the names and contents of all files. Nothing is unpickled.
- prepare.py runs unconfined, so only with leave, and sees an environment of named variables, an empty home whose
  ~/.cache/autoresearch is the data folder, and no keys.

The id of data that is there: `python -m trainer.running.dataset [FOLDER]`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Final

from common.files import lock, write_atomic
from trainer.errors import EnvironmentNotReady
from trainer.machine.environment import Environment
from trainer.running import experiment

Say = Callable[[str], None]

MANIFEST: Final = "manifest.json"
CACHE: Final = Path(".cache", "autoresearch")  # below the home, where a harness looks unless AUTORESEARCH_CACHE says
MAX_FILES: Final = 20_000
_MAX_MANIFEST: Final = 64 << 20
SECONDS: Final = 6 * 3600.0
_TURN: Final = ".preparing"  # locked by whoever prepares the data; not empty while that is unfinished
_HARNESS_LOCK: Final = ".lock"  # this repository's prepare.py holds it while it works
_NETWORK: Final = (  # what a download may need, where it holds no password
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_ENDPOINT"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_OFFLINE", "UV_CONFIG_FILE"),
)
_UV: Final = {"UV_CACHE_DIR": ".cache/uv", "UV_PYTHON_INSTALL_DIR": ".local/share/uv/python"}  # below the user's home


def folder_of(home: Path, bundle_id: str, arguments: Sequence[str]) -> Path:
    """Where a project's data lies: AUTORESEARCH_CACHE, else the usual cache for the public dataset, else the home."""
    if given := os.environ.get("AUTORESEARCH_CACHE"):
        return Path(given).absolute()
    if arguments:
        return home / "data" / sha256(bundle_id.encode()).hexdigest()[:16]
    return Path.home() / CACHE


def snapshot_id(cache: Path) -> str | None:
    """The id of the data in `cache`, None if there is none; EnvironmentNotReady if it cannot be read."""
    try:
        return manifest_id(cache) or content_id(cache)
    except OSError as error:
        raise EnvironmentNotReady(f"Cannot read the data in {cache}: {error}.", "Check its permissions.") from error


def manifest_id(cache: Path) -> str | None:
    """SHA-256 of the canonical form of the data's manifest, which is written last; None without one."""
    try:
        with (cache / MANIFEST).open("rb") as file:
            document = json.loads(file.read(_MAX_MANIFEST))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise EnvironmentNotReady(
            f"{cache / MANIFEST} is damaged: {str(error)[:200]}.", "Delete it and prepare the data again."
        ) from error
    return sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def content_id(cache: Path) -> str | None:
    """SHA-256 over the sorted names and SHA-256s of the files below `cache`; None if there are none.

    Hidden files and unfinished ones (.tmp, .part, .lock) do not count, nor do links.
    """
    names: list[str] = []
    for path in cache.rglob("*"):
        below = path.relative_to(cache)
        if path.suffix in (".tmp", ".part", ".lock") or any(part.startswith(".") for part in below.parts):
            continue
        if path.is_file() and not path.is_symlink():
            names.append(below.as_posix())
        if len(names) > MAX_FILES:
            raise EnvironmentNotReady(
                f"{cache} has more than {MAX_FILES:,} prepared files.", "Check AUTORESEARCH_CACHE."
            )
    total = sha256()
    for name in sorted(names):
        with (cache / name).open("rb") as file:
            total.update(sha256(name.encode()).digest() + file_digest(file, "sha256").digest())
    return total.hexdigest() if names else None


def ready(cache: Path, expected: str | None, *, manifest: bool = False) -> str | None:
    """The id of data that needs no preparing; None if prepare.py must run.

    Data with a manifest is complete whatever its id is, and of a harness that writes one (`manifest`) no other is.
    Else the id that is `expected` says so; where none is, because the project pins none or is just being made, any data
    does that no preparation of ours was interrupted in.
    """
    found = snapshot_id(cache)
    if found == expected or (cache / MANIFEST).exists():
        return found
    if expected is not None or manifest or _interrupted(cache):
        return None
    return found


def prepare(
    files: Mapping[str, bytes],
    env: Environment,
    harness: Path,
    cache: Path,
    arguments: Sequence[str],
    say: Say,
    *,
    allowed: bool,
    expected: str | None = None,
    manifest: bool = False,
) -> str:
    """Run the harness's own preparation unless it is done; the data snapshot id. `harness` is a folder for its copy.

    One process prepares at a time; others wait for it, and so they do for a prepare.py that somebody runs by hand.
    EnvironmentNotReady if preparing is not `allowed`, or fails.
    """
    _await_others(cache, say)
    if found := ready(cache, expected, manifest=manifest):
        return found
    script = copy_harness(files, harness)
    if not allowed:
        raise EnvironmentNotReady(
            f"The data of this project is not prepared in {cache}, and its prepare.py differs from the one in this "
            "repository.",
            f"Read {script} and run it, or allow it with --trust-harness.",
        )
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / _TURN).open("ab", buffering=0) as turn:
        _hold(turn, cache, say)
        _await_others(cache, say, (_HARNESS_LOCK,))
        if found := ready(cache, expected, manifest=manifest):
            return found
        turn.write(b"not finished\n")
        code, log = run_command([str(env.python), script.name, *arguments], harness, env, cache, say, SECONDS)
        if code is None:
            raise EnvironmentNotReady(f"prepare.py took longer than {SECONDS / 3600:g} hours.", "Run it by hand.")
        if code != 0:
            last = experiment.tail(log, 1) or "no output"
            raise EnvironmentNotReady(f"prepare.py failed: {last}", "Fix this, then run the command again.")
        made = snapshot_id(cache)
        if made is None:
            raise EnvironmentNotReady(f"prepare.py put no data into {cache}.", "Ask the project's owner.")
        turn.truncate(0)
    return made


def _interrupted(cache: Path) -> bool:
    """Whether a preparation began here and did not finish."""
    try:
        return (cache / _TURN).stat().st_size > 0
    except FileNotFoundError:
        return False


def _await_others(cache: Path, say: Say, names: Sequence[str] = (_TURN, _HARNESS_LOCK)) -> None:
    """Return once nobody prepares this data; a folder that nobody ever prepared is left as it is."""
    for name in names:
        with contextlib.suppress(FileNotFoundError), (cache / name).open("rb") as file:
            _hold(file, cache, say, shared=True)


def _hold(file: IO[bytes], cache: Path, say: Say, *, shared: bool = False) -> None:
    waiting = f"waiting for another process that prepares the data in {cache}"
    if not lock(file, wait=SECONDS, every=0.5, shared=shared, busy=lambda: say(waiting)):
        raise EnvironmentNotReady(
            f"Another process has been preparing the data in {cache} for {SECONDS / 3600:g} hours.",
            "Let it finish, or stop it.",
        )


def copy_harness(files: Mapping[str, bytes], harness: Path) -> Path:
    """The path of a copy of prepare.py, with the protocol beside it where the snapshot has one."""
    if "prepare.py" not in files:
        raise EnvironmentNotReady("The bundle has no prepare.py.", "Ask the project's owner.")
    for name in ("prepare.py", "protocol.json"):
        copy = harness / name
        if name in files and not (copy.is_file() and copy.read_bytes() == files[name]):
            write_atomic(copy, files[name])
    return harness / "prepare.py"


def run_command(
    argv: Sequence[str], cwd: Path, env: Environment, cache: Path, say: Say, seconds: float
) -> tuple[int | None, bytes]:
    """Run a command that prepares data, `say` getting its newest line: exit status (None: too slow) and log.

    It is unconfined, but its environment is `variables`. After `seconds`, at Ctrl-C and when this process dies its
    whole tree is killed.
    """
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        private = Path(folder)
        cache.mkdir(parents=True, exist_ok=True)
        given = variables(os.environ, env, cache, private)
        command = experiment.LaunchCommand(tuple(argv), cwd, given, private, (), seconds)
        code, log = experiment.run_command(command, on_line=say)
    return code, log.data


def variables(outer: Mapping[str, str], env: Environment, cache: Path, private: Path) -> dict[str, str]:
    """The environment of a preparation: a run's, with what a download needs; home and temporary folder are made."""
    home, temporary = private / "home", private / "tmp"
    temporary.mkdir()
    experiment.link_cache(home, cache)
    found = experiment.scrubbed(outer, env, cache=cache, home=home, temporary=temporary)
    del found["HF_HUB_OFFLINE"]
    for name, place in _UV.items():
        found[name] = outer.get(name) or str(Path(outer.get("HOME", "/"), place))
    settings = Path(outer.get("HOME", "/"), ".config", "uv", "uv.toml")
    if settings.is_file():
        found["UV_CONFIG_FILE"] = str(settings)
    return found | {name: outer[name] for name in _NETWORK if "@" not in outer.get(name, "@")}


def main(arguments: Sequence[str]) -> int:
    """Print the id of the data in a folder."""
    cache = Path(arguments[0]) if arguments else folder_of(Path(), "", ())
    found = snapshot_id(cache)
    print(found or f"no data in {cache}", file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
