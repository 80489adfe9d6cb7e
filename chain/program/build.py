"""Build the program's images from its C source: `python -m chain.program.build [--check]`.

The compiler is the pinned `ziglang` wheel; it sees relative paths only, so the same source gives the same
bytes on every machine. `--check` rebuilds and compares with the committed images instead of writing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from chain.program.link import LinkError, Version, link
from common.files import write_atomic

HERE = Path(__file__).parent
SOURCES = ("openresearch.c", "sbf.h")
ZIG = "0.17.1"
VERSIONS: tuple[Version, ...] = (0, 3)
COMPILE_SECONDS = 300
_TARGET = "-target bpfel-freestanding -mcpu=v2+allows_misaligned_mem_access -mllvm -bpf-stack-size=4096"
_LEAN = "-fno-unwind-tables -fno-asynchronous-unwind-tables -fno-ident"
_FLAGS = ["-std=c11", *_TARGET.split(), "-O2", *_LEAN.split(), "-Wall", "-Wextra", "-Werror"]


def compile_object(source: str, folder: Path) -> bytes:
    """The relocatable object of the C file `source` in `folder`; LinkError with the compiler's words."""
    try:
        found = version("ziglang")
    except PackageNotFoundError:
        found = "none"
    if found != ZIG:
        raise LinkError(f"building needs the wheel ziglang {ZIG}, found: {found} (uv sync --group program)")
    command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-c", source, "-o", "out.o"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    if done.returncode:
        raise LinkError(f"{source} does not compile:\n{done.stderr.strip()}")
    return (folder / "out.o").read_bytes()


def build() -> dict[Path, bytes]:
    """Every image by the path where it is committed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in SOURCES:
            shutil.copyfile(HERE / name, folder / name)
        compiled = compile_object(SOURCES[0], folder)
    return {HERE / f"openresearch-v{number}.so": link(compiled, number) for number in VERSIONS}


def main(arguments: list[str]) -> int:
    """Build or check; the exit status."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m chain.program.build [--check]", file=sys.stderr)
        return 2
    try:
        images = build()
    except LinkError as error:
        print(f"chain.program.build: {error}", file=sys.stderr)
        return 1
    if arguments:
        stale = [path.name for path, data in images.items() if not path.exists() or path.read_bytes() != data]
        if stale:
            print(f"{' and '.join(stale)} differ from the source: run python -m chain.program.build", file=sys.stderr)
        return 1 if stale else 0
    for path, data in images.items():
        write_atomic(path, data)
        print(f"{path.name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
