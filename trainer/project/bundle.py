"""Snapshots and candidate archives: trees of small files, carried as one uncompressed tar.

A tree is a mapping from path to bytes; paths are relative, UTF-8, with `/`. Rules:

- `pack` writes the same bytes for the same tree: sorted names, mode 0644, owner 0, mtime 0, no prefix.
- `read_archive` never extracts. It accepts what `git archive`, GNU tar and bsdtar write of plain files (pax headers
  with a comment, a long path or extended attributes, GNU long names, a leading `./`, macOS's `._name` beside a
  file); all else is an `UnsafeArchive` with its `ArchiveFault` and path.
- A candidate may lie in one folder, as `git archive --prefix` writes it (`unprefixed`).
- It has its own reader, 512-byte header by header: what it does not know it refuses, so that no second reader
  can see other files in the same bytes.
- Nothing lies in a `.git` folder: its configuration would be obeyed by the next git command in the tree.
- Two names that a case-insensitive or Unicode-normalising file system takes for one are refused.
- What a candidate may change is `mutableSurface.allowedGlobs` less what `forbiddenGlobs` or
  `immutableHarness.paths` name. In a glob `*`, `?` and `[…]` stay within one path component, `**` is any
  number of components, and a final `/` means everything below.

Facts: POSIX.1-2017 pax interchange format; `git archive` writes ustar headers, one global pax header with the
commit, and a pax header for a path that does not fit.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from trainer.errors import InvalidBundle
from trainer.project.protocol import MutableSurface

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
GIT: Final = frozenset({".git", "git~1"})  # a repository's own folder, which git archives never hold
RECORDS: Final = ".autoresearch"  # the folder in which official clients keep records beside the tree
IGNORED: Final = frozenset({".git", ".venv", "__pycache__", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bytes and counts; the upstream repository is about 1 MB in 40 files."""

    archive_bytes: int = 64 * 1024 * 1024
    file_bytes: int = 16 * 1024 * 1024
    members: int = 4096
    path_bytes: int = 255
    path_depth: int = 32


class ArchiveFault(StrEnum):
    """What is wrong with an archive or a tree, in the words of a report."""

    ARCHIVE_TOO_LARGE = "the archive is too large"
    COMPRESSED = "the archive is compressed"
    MALFORMED = "the archive is not a well-formed POSIX tar"
    TRUNCATED = "the archive ends too early"
    TRAILING_DATA = "data follows the end of the archive"
    UNSAFE_PATH = "the path is absolute, leaves the tree, or is not plain text"
    DUPLICATE = "the path occurs twice"
    COLLISION = "the path is the same as another on some file systems"
    LINK = "a link"
    DEVICE = "a device or pipe"
    UNSUPPORTED = "an extension of the tar format that is not accepted"
    FILE_TOO_LARGE = "the file is too large"
    TOO_MANY = "too many members"


class UnsafeArchive(InvalidBundle):
    """An archive or tree that is refused: which `finding`, at which `path` (empty: the archive itself)."""

    def __init__(self, finding: ArchiveFault, path: str = "", detail: str = "") -> None:
        self.finding, self.path, self.detail = finding, path, detail
        where = f" at {path!a}" if path else ""
        what = f"{finding} ({detail})" if detail else str(finding)
        super().__init__(
            f"Expected a plain tar, found{where}: {what}.",
            "Build the archive again from plain files.",
        )


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive read whole: its files, the SHA-256 of its bytes, and the commit that `git archive` names."""

    files: Mapping[str, bytes]
    sha256: str
    commit: str | None


def read_archive(data: bytes, limits: ArchiveLimits = ArchiveLimits()) -> Archive:
    """The files in an archive from outside, or UnsafeArchive. Nothing is written anywhere."""
    archive, faults = survey(data, limits)
    if faults:
        raise faults[0]
    return archive


def survey(data: bytes, limits: ArchiveLimits = ArchiveLimits()) -> tuple[Archive, list[UnsafeArchive]]:
    """What can be read of an archive, and all that is wrong with it, in order; of a path that is there twice the first
    one. An archive with faults is no candidate, but what it holds may be looked at."""
    files: dict[str, bytes] = {}
    faults: list[UnsafeArchive] = []
    names, commit = _Names(limits), None
    try:
        for path, kind, content in _members(data, limits):
            try:
                if kind == "g":
                    commit = content.decode() or commit
                    continue
                if kind not in "05":
                    _refuse_kind(kind, path)
                names.add(path, folder=kind == "5")
                if kind == "0":
                    files[path] = content
            except UnsafeArchive as fault:
                faults.append(fault)
    except UnsafeArchive as fault:
        faults.append(fault)
    is_commit = commit is not None and len(commit) in (40, 64) and not commit.strip("0123456789abcdef")
    return Archive(files, sha256(data).hexdigest(), commit if is_commit else None), faults


def _members(data: bytes, limits: ArchiveLimits) -> Iterator[tuple[str, str, bytes]]:
    """(path, type, content) of each member; type "g" is a commit's name, in the place of the content.

    Paths without their leading `./`; what macOS writes beside a file (`._name`) and the root folder are left out.
    """
    if len(data) > limits.archive_bytes:
        raise UnsafeArchive(ArchiveFault.ARCHIVE_TOO_LARGE, detail=f"{len(data)} bytes, at most {limits.archive_bytes}")
    if data.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"\x1f\x9d")):
        raise UnsafeArchive(ArchiveFault.COMPRESSED)
    if len(data) % BLOCK:
        raise UnsafeArchive(ArchiveFault.TRUNCATED, detail=f"{len(data)} bytes are not whole blocks")
    long_path, offset, members = None, 0, 0
    while any(header := data[offset : offset + BLOCK]):
        members += 1
        if members > limits.members:
            raise UnsafeArchive(ArchiveFault.TOO_MANY, detail=f"at most {limits.members}")
        path, kind, size = _header(header, long_path)
        start, offset = offset + BLOCK, offset + BLOCK + -(-size // BLOCK) * BLOCK
        if size > limits.file_bytes:
            raise UnsafeArchive(ArchiveFault.FILE_TOO_LARGE, path, f"{size} bytes, at most {limits.file_bytes}")
        if offset > len(data):
            raise UnsafeArchive(ArchiveFault.TRUNCATED, path)
        body = data[start : start + size]
        if kind in "gxL" and long_path is not None:
            raise UnsafeArchive(ArchiveFault.MALFORMED, path, "a long name after a long name")
        if kind == "L":
            long_path = _long_name(body, path)
        elif kind in "gx":
            fields = _pax(body, path, kind)
            long_path = fields.get("path", "") if kind == "x" else None
            yield "", "g", fields.get("comment", "").encode()
        else:
            long_path = None
            path = _plain(path)
            if not (kind == "5" and path == "") and not _apple_double(path, kind, body):
                yield path, kind, b"" if kind == "5" else body
    if long_path is not None or len(header) < BLOCK:
        raise UnsafeArchive(ArchiveFault.TRUNCATED, detail="no end-of-archive block")
    if data.count(0, offset) != len(data) - offset:
        raise UnsafeArchive(ArchiveFault.TRAILING_DATA)


_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_UNUSED = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))  # mode, owners, time, device


def _header(header: bytes, long_path: str | None) -> tuple[str, str, int]:
    """Path, type and size of one header; the type is "0" for any regular file."""
    if header[257:265] not in (_POSIX, _GNU):
        raise UnsafeArchive(ArchiveFault.MALFORMED, detail="no POSIX magic in a header")
    if _octal(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 32:
        raise UnsafeArchive(ArchiveFault.MALFORMED, detail="a header's checksum is wrong")
    for start, end in _UNUSED:  # another reader may stop at a header with odd ones; large ids are binary
        if header[start] not in (0x80, 0xFF) and header[start:end].split(b"\0")[0].strip().strip(b"01234567"):
            raise UnsafeArchive(ArchiveFault.MALFORMED, detail="a number in a header is not octal")
    prefix, name = (field.split(b"\0")[0] for field in (header[345:500], header[:100]))
    raw = prefix + b"/" + name if prefix and header[257:265] == _POSIX else name  # GNU keeps other things there
    try:
        path = long_path or raw.decode()
    except UnicodeDecodeError:
        raise UnsafeArchive(ArchiveFault.UNSAFE_PATH, raw.decode(errors="replace")) from None
    kind, size = chr(header[156]) if header[156] else "0", _octal(header[124:136])
    if kind in "12":
        size = 0  # POSIX allows a size there, and no content follows
    path = path.removesuffix("/") if kind == "5" else path
    if kind == "5" and size:
        raise UnsafeArchive(ArchiveFault.MALFORMED, path, "a folder with contents")
    if kind == "L" and header[257:265] != _GNU:
        raise UnsafeArchive(ArchiveFault.UNSUPPORTED, path, "a GNU header in a POSIX archive")
    return path, kind, size


def _long_name(body: bytes, path: str) -> str:
    """The name in GNU tar's header for a path of more than 100 bytes."""
    try:
        return body.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise UnsafeArchive(ArchiveFault.UNSAFE_PATH, path) from None


def _plain(path: str) -> str:
    """A path as `tar .` writes it, without what says "here"."""
    while path.startswith("./"):
        path = path[2:]
    return "" if path == "." else path


def _apple_double(path: str, kind: str, body: bytes) -> bool:
    """Whether a member holds what macOS keeps of the file beside it: attributes, never a part of the tree."""
    name = path.rpartition("/")[2]
    return kind == "0" and name.startswith("._") and len(name) > 2 and body.startswith(b"\x00\x05\x16\x07")


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise UnsafeArchive(ArchiveFault.MALFORMED, detail="a number in a header is not octal")
    return int(digits, 8)


def _refuse_kind(kind: str, path: str) -> NoReturn:
    """Everything that is neither a file nor a folder."""
    if kind in "12":
        raise UnsafeArchive(ArchiveFault.LINK, path)
    if kind in "346":
        raise UnsafeArchive(ArchiveFault.DEVICE, path)
    raise UnsafeArchive(ArchiveFault.UNSUPPORTED, path, f"member type {kind!a}")


_PAX_HARMLESS: Final = frozenset({"comment", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"})
_PAX_ATTRIBUTES: Final = ("SCHILY.", "LIBARCHIVE.")  # what bsdtar keeps of macOS: dates, device numbers, xattr
_PAX_SPARSE: Final = "SCHILY.realsize"


def _pax(body: bytes, path: str, kind: str) -> dict[str, str]:
    """The records `length key=value` of a pax header of at most 64 KiB; only those that cannot hurt."""
    found: dict[str, str] = {}
    if len(body) > 64 * 1024:
        raise UnsafeArchive(ArchiveFault.FILE_TOO_LARGE, path, "a pax header of more than 64 KiB")
    while body:
        digits, space, _ = body[:8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record, body = body[:length], body[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not space or not equals or len(record) != length or record[-1:] != b"\n":
            raise UnsafeArchive(ArchiveFault.MALFORMED, path, "a pax record")
        name = key.decode(errors="replace")
        if name.startswith(_PAX_ATTRIBUTES) and name != _PAX_SPARSE:
            continue
        if name in found or not (name in _PAX_HARMLESS or (name == "path" and kind == "x" and value)):
            raise UnsafeArchive(ArchiveFault.UNSUPPORTED, path, f"pax record {name!a}")
        try:
            found[name] = value.decode()
        except UnicodeDecodeError:
            raise UnsafeArchive(ArchiveFault.UNSAFE_PATH, path, f"pax record {name!a}") from None
    return found


class _Names:
    """The names taken so far, with the rules every tree keeps."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._taken: dict[str, tuple[str, bool]] = {}
        self._listed: set[str] = set()

    def add(self, path: str, folder: bool = False) -> None:
        """Take `path` and, as folders, all its parents."""
        parts = path.split("/")
        if (
            not path.isprintable()
            or "\\" in path
            or len(path.encode(errors="replace")) > self._limits.path_bytes
            or len(parts) > self._limits.path_depth
            or any(part in ("", ".", "..") or part.casefold() in GIT for part in parts)
        ):
            raise UnsafeArchive(ArchiveFault.UNSAFE_PATH, path)
        if path in self._listed:
            raise UnsafeArchive(ArchiveFault.DUPLICATE, path)
        self._listed.add(path)
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            mine = here, folder or depth < len(parts)
            if self._taken.setdefault(fold(here), mine) != mine:
                raise UnsafeArchive(ArchiveFault.COLLISION, path, f"with {self._taken[fold(here)][0]!a}")


def fold(path: str) -> str:
    """The key under which case-insensitive, normalising file systems (APFS, NTFS) may find a path."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def check(files: Mapping[str, bytes], limits: ArchiveLimits = ArchiveLimits()) -> None:
    """UnsafeArchive unless the tree keeps the rules for paths, sizes and counts."""
    names = _Names(limits)
    if len(files) > limits.members:
        raise UnsafeArchive(ArchiveFault.TOO_MANY, detail=f"at most {limits.members}")
    if sum(map(len, files.values())) > limits.archive_bytes:
        raise UnsafeArchive(ArchiveFault.ARCHIVE_TOO_LARGE, detail=f"at most {limits.archive_bytes} bytes")
    for path, content in sorted(files.items()):
        names.add(path)
        if len(content) > limits.file_bytes:
            raise UnsafeArchive(ArchiveFault.FILE_TOO_LARGE, path, f"{len(content)} bytes, at most {limits.file_bytes}")


def pack(files: Mapping[str, bytes]) -> bytes:
    """The tree as a tar, the same bytes for the same tree; UnsafeArchive if it breaks the rules."""
    check(files)
    parts = [part for path, content in sorted(files.items()) for part in (*_member(path, len(content)), content)]
    blocks = b"".join(part + bytes(-len(part) % BLOCK) for part in parts) + bytes(2 * BLOCK)
    return blocks + bytes(-len(blocks) % RECORD)


def _member(path: str, size: int) -> tuple[bytes, ...]:
    """The header blocks of one file; a path of more than 100 bytes goes into a pax header, as git does it."""
    raw = path.encode()
    if len(raw) <= 100:
        return (_ustar(raw, b"0", size),)
    record = b" path=" + raw + b"\n"
    length = len(record) + len(str(len(record)))
    length += len(str(length)) - len(str(len(record)))
    record = str(length).encode() + record
    return (
        _ustar(b"pax_header", b"x", len(record)),
        record,
        _ustar(sha256(raw).hexdigest().encode(), b"0", size),
    )


def _ustar(name: bytes, kind: bytes, size: int) -> bytes:
    numbers = b"".join(b"%07o\0" % value for value in (0o644, 0, 0)) + b"%011o\0" % size + b"%011o\0" % 0
    head = name.ljust(100, b"\0") + numbers
    tail = kind + bytes(100) + b"ustar\x0000" + bytes(64) + b"%07o\0" % 0 * 2 + bytes(167)
    return head + b"%06o\0 " % (sum(head) + sum(tail) + 8 * 32) + tail


def read_tree(folder: Path, limits: ArchiveLimits = ArchiveLimits()) -> dict[str, bytes]:
    """The files below `folder` without the IGNORED names; a link or special file is an UnsafeArchive."""
    found: dict[str, bytes] = {}
    pending, room = [folder], limits.archive_bytes
    while pending:
        for entry in sorted(os.scandir(pending.pop()), key=lambda entry: entry.name):
            path = Path(entry.path).relative_to(folder).as_posix()
            if entry.name in IGNORED:
                continue
            if entry.is_symlink():
                raise UnsafeArchive(ArchiveFault.LINK, path)
            if entry.is_dir():
                pending.append(Path(entry.path))
            elif not entry.is_file():
                raise UnsafeArchive(ArchiveFault.DEVICE, path)
            elif len(found) >= limits.members:
                raise UnsafeArchive(ArchiveFault.TOO_MANY, path)
            elif (size := entry.stat().st_size) > min(limits.file_bytes, room):
                raise UnsafeArchive(ArchiveFault.FILE_TOO_LARGE, path, f"{size} bytes")
            else:
                room -= size
                found[path] = Path(entry.path).read_bytes()
    check(found, limits)
    return dict(sorted(found.items()))


def write_tree(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the tree into `folder`, absent or empty before and complete after; never half-written."""
    check(files)
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InvalidBundle(f"{folder} is not empty.", "Choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for path, content in sorted(files.items()):
            target = building / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        building.replace(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over sorted paths and contents: equal for equal trees, whichever archive carried them."""
    total = sha256()
    for path, content in sorted(files.items()):
        total.update(sha256(path.encode()).digest() + sha256(content).digest())
    return total.hexdigest()


def is_mutable(path: str, surface: MutableSurface) -> bool:
    """Whether a candidate may change `path`.

    What is forbidden is so with everything below it, and in any spelling a file system could accept.
    """
    parts = fold(path).split("/")
    closed = [fold(glob) for glob in (*surface.forbidden, *surface.harness)]
    return _any_glob(path, surface.allowed) and not any(
        _any_glob("/".join(parts[:depth]), closed) for depth in range(1, len(parts) + 1)
    )


def _any_glob(path: str, globs: Iterable[str]) -> bool:
    parts = path.split("/")
    return any(_matches(parts, (glob + "*/**" if glob.endswith("/") else glob).split("/")) for glob in globs)


def _matches(parts: Sequence[str], glob: Sequence[str]) -> bool:
    """Component-wise, over a table of the prefixes matched so far, so that many `**` stay cheap."""
    reached = {0}
    for pattern in glob:
        if pattern == "**":
            reached = set(range(min(reached), len(parts) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], pattern)}
    return len(parts) in reached


def unprefixed(files: Mapping[str, bytes], snapshot: Mapping[str, bytes]) -> dict[str, bytes]:
    """A candidate's files, without the one folder that they all lie in where the snapshot's lie in none.

    Only what is unambiguous: no file is where the snapshot has one, and without the folder at least one is.
    """
    folders = {path.partition("/")[0] for path in files}
    inner = {path.partition("/")[2]: content for path, content in files.items()}
    if len(folders) != 1 or "" in inner or files.keys() & snapshot.keys() or not inner.keys() & snapshot.keys():
        return dict(files)
    return inner


def overlay(snapshot: Mapping[str, bytes], candidate: Mapping[str, bytes], surface: MutableSurface) -> dict[str, bytes]:
    """The snapshot with the candidate's mutable files in it; all else of the candidate is left out."""
    mutable = {path: content for path, content in candidate.items() if is_mutable(path, surface)}
    tree = dict(sorted({**snapshot, **mutable}.items()))
    check(tree)
    return tree


def changed_outside_surface(
    snapshot: Mapping[str, bytes], candidate: Mapping[str, bytes], surface: MutableSurface
) -> list[str]:
    """The candidate's paths that are neither mutable nor as in the snapshot. A file left out is no change, and neither
    are other clients' RECORDS, which never get into a tree unless they are mutable."""
    known = {fold(path): path for path in snapshot}
    return sorted(
        path
        for path, content in candidate.items()
        if snapshot.get(path) != content
        and not path.startswith(f"{RECORDS}/")
        and not (is_mutable(path, surface) and known.get(fold(path), path) == path)
    )
