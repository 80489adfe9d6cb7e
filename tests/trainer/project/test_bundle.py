"""Archives: what git writes is read, what could hurt is refused by name, and packing is deterministic."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import require
from trainer.errors import InvalidBundle
from trainer.project import bundle
from trainer.project.bundle import ArchiveFault, ArchiveLimits, UnsafeArchive
from trainer.project.protocol import MutableSurface

TREE = {
    "train.py": b"print(1)\n",
    "prepare.py": b"",
    "data/a/b.bin": bytes(range(256)) * 5,
    "README.md": b"#\n",
}
ARMLX = MutableSurface(("train.py",), ("prepare.py", "README.md", "uv.lock"), ("prepare.py",))


def tar(*members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive by the standard library; a TarInfo has no contents."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return stream.getvalue()


def info(name: str, kind: bytes, link: str = "", pax: dict[str, str] | None = None, size: int = 0) -> tarfile.TarInfo:
    """A member of a given type."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    member.pax_headers = pax or {}
    return member


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """An archive with bytes of its first header changed and the checksum made right again."""
    header = bytearray(data[:512])
    header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def test_git_archives_are_read(tmp_path: Path) -> None:
    require(shutil.which("git") is not None, "git (apt-get install git)")
    long = "folder-" * 12 + "/" + "name-" * 20 + ".txt"
    tree = {**TREE, long: b"long", "b/" * 12 + "é.txt": b"unicode", "with space.txt": b""}
    bundle.write_tree(tree, tmp_path / "repo")
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}

    def git(*words: str) -> bytes:
        who = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
        command = ["git", *who, *words]
        return subprocess.run(command, cwd=tmp_path / "repo", env=quiet, check=True, capture_output=True).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    data = git("archive", "--format=tar", "HEAD")
    found = bundle.read_archive(data)
    assert dict(found.files) == tree
    assert found.commit == git("rev-parse", "HEAD").decode().strip()
    assert found.sha256 == sha256(data).hexdigest()
    assert bundle.read_tree(tmp_path / "repo") == dict(sorted(tree.items()))

    (tmp_path / "repo" / "link").symlink_to("train.py")
    git("add", ".")
    git("commit", "-q", "-m", "link")
    with pytest.raises(UnsafeArchive) as caught:
        bundle.read_archive(git("archive", "--format=tar", "HEAD"))
    assert (caught.value.finding, caught.value.path) == (ArchiveFault.LINK, "link")


def test_packing_is_pinned() -> None:
    data = bundle.pack(TREE)
    assert data == bundle.pack(dict(reversed(TREE.items())))
    assert sha256(data).hexdigest() == "f24a202e1abb4bbde89ca2f5465dc5b76f1602383985965f4fc4884339ab8528"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [member.name for member in archive] == sorted(TREE)
        assert {(m.uid, m.gid, m.mtime, m.mode, m.uname) for m in archive} == {(0, 0, 0, 0o644, "")}


PAX, GNU = tarfile.PAX_FORMAT, tarfile.GNU_FORMAT
APPLE_DOUBLE = b"\x00\x05\x16\x07" + bytes(100)
XATTR = {"SCHILY.xattr.com.apple.provenance": "x", "LIBARCHIVE.creationtime": "1.5", "SCHILY.ino": "7"}
SAFE: list[tuple[str, bytes, dict[str, bytes]]] = [
    ("one file", tar(("train.py", b"x")), {"train.py": b"x"}),
    ("a folder entry", tar(info("a", tarfile.DIRTYPE), ("a/b", b"x")), {"a/b": b"x"}),
    ("old regular type", patched(tar(("a", b"x")), 156, b"\0"), {"a": b"x"}),
    ("empty", bytes(10240), {}),
    (
        "GNU tar of a folder",
        tar(info("./", b"5"), ("./a", b"x"), ("./b/c", b"y"), format=GNU),
        {"a": b"x", "b/c": b"y"},
    ),
    ("GNU tar's long name", tar(("name-" * 30, b"x"), ("b", b"y"), format=GNU), {"name-" * 30: b"x", "b": b"y"}),
    ("bsdtar's attributes", tar(info("a", b"0", pax=XATTR), ("b", b"x"), format=PAX), {"a": b"", "b": b"x"}),
    ("bsdtar's file beside", tar(("./._a", APPLE_DOUBLE), ("./a", b"x"), ("b/._c", APPLE_DOUBLE)), {"a": b"x"}),
    ("a file of such a name", tar(("._a", b"mine")), {"._a": b"mine"}),
    ("pax time stamps", tar(info("a", b"0", pax={"mtime": "1.5"}), format=tarfile.PAX_FORMAT), {"a": b""}),
]


@pytest.mark.parametrize(("data", "files"), [case[1:] for case in SAFE], ids=[case[0] for case in SAFE])
def test_safe_archives(data: bytes, files: dict[str, bytes]) -> None:
    assert bundle.read_archive(data).files == files


UNSAFE: list[tuple[ArchiveFault, str, bytes]] = [
    (ArchiveFault.UNSAFE_PATH, "/etc/passwd", tar(("/etc/passwd", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "../train.py", tar(("../train.py", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a/../../b", tar(("a/../../b", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "/train.py", tar((".//train.py", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "../x", tar(("./../x", b"x"))),
    (ArchiveFault.DUPLICATE, "train.py", tar(("./train.py", b"x"), ("train.py", b"y"))),
    (ArchiveFault.UNSUPPORTED, "././@PaxHeader", tar(info("a", b"0", pax={"SCHILY.realsize": "9"}), format=PAX)),
    (ArchiveFault.UNSAFE_PATH, "../" + "a" * 120, tar(("../" + "a" * 120, b"x"), format=GNU)),
    (ArchiveFault.UNSAFE_PATH, "a//b", tar(("a//b", b"x"))),
    (ArchiveFault.UNSAFE_PATH, ".git/config", tar((".git/config", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a/.GIT/hooks/pre-commit", tar(("a/.GIT/hooks/pre-commit", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "GIT~1/config", tar(("GIT~1/config", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a\\b", tar(("a\\b", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a\nb", tar(("a\nb", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a\x1b[2J", tar(("a\x1b[2J", b"x"))),
    (ArchiveFault.UNSAFE_PATH, "a/", patched(tar(("a/", b"x")), 156, b"0")),
    (ArchiveFault.UNSAFE_PATH, "", patched(tar(("a", b"x")), 0, b"\0")),
    (ArchiveFault.UNSAFE_PATH, "\ufffd", patched(tar(("a", b"x")), 0, b"\xff")),
    (ArchiveFault.UNSAFE_PATH, "/".join("a" * 40), tar(("/".join("a" * 40), b"x"))),
    (ArchiveFault.UNSAFE_PATH, "../x", tar(info("a", b"0", pax={"path": "../x"}), format=PAX)),
    (ArchiveFault.DUPLICATE, "a", tar(("a", b"x"), ("a", b"y"))),
    (ArchiveFault.DUPLICATE, "a", tar(info("a", b"5"), info("a", b"5"))),
    (ArchiveFault.COLLISION, "Train.py", tar(("train.py", b"x"), ("Train.py", b"y"))),
    (ArchiveFault.COLLISION, "Src/b", tar(("src/a", b"x"), ("Src/b", b"y"))),
    (ArchiveFault.COLLISION, "e\u0301", tar(("\u00e9", b"x"), ("e\u0301", b"y"))),
    (ArchiveFault.COLLISION, "STRASSE", tar(("stra\u00dfe", b"x"), ("STRASSE", b"y"))),
    (ArchiveFault.COLLISION, "a/b", tar(("a", b"x"), ("a/b", b"y"))),
    (ArchiveFault.COLLISION, "a", tar(("a/b", b"x"), ("a", b"y"))),
    (ArchiveFault.LINK, "a", tar(info("a", tarfile.SYMTYPE, "/etc/passwd"))),
    (ArchiveFault.LINK, "b", tar(("a", b"x"), info("b", tarfile.LNKTYPE, "a"))),
    (ArchiveFault.DEVICE, "a", tar(info("a", tarfile.CHRTYPE))),
    (ArchiveFault.DEVICE, "a", tar(info("a", tarfile.BLKTYPE))),
    (ArchiveFault.DEVICE, "a", tar(info("a", tarfile.FIFOTYPE))),
    (ArchiveFault.UNSUPPORTED, "a", patched(tar(("a", b"x")), 156, b"S")),
    (ArchiveFault.UNSUPPORTED, "a", patched(tar(("a", b"x")), 156, b"L")),
    (ArchiveFault.UNSUPPORTED, "a", patched(tar(("a", b"x")), 156, b"7")),
    (ArchiveFault.UNSUPPORTED, "././@PaxHeader", tar(info("a", b"0", pax={"size": "9"}), format=PAX)),
    (ArchiveFault.UNSUPPORTED, "././@PaxHeader", tar(info("a", b"0", pax={"GNU.sparse.size": "9"}), format=PAX)),
    (ArchiveFault.UNSUPPORTED, "././@PaxHeader", tar(info("a", b"0", pax={"linkpath": "b"}), format=PAX)),
    (ArchiveFault.MALFORMED, "a", patched(tar(info("a", b"5")), 124, b"00000000001\0")),
    (ArchiveFault.MALFORMED, "", patched(tar(("a", b"x")), 124, b"\x80" + bytes(10) + b"\x01")),
    (ArchiveFault.MALFORMED, "", patched(tar(("a", b"x")), 124, b"-0000000001\0")),
    # Python's own tarfile ends there, without a word, and sees none of the members that follow.
    *((ArchiveFault.MALFORMED, "", patched(tar(("a", b"x")), at, b"x\0")) for at in (100, 108, 116, 136, 329, 337)),
    (ArchiveFault.MALFORMED, "", tar(("a", b"x"))[:148] + b"0000000\0" + tar(("a", b"x"))[156:]),
    (ArchiveFault.MALFORMED, "", b"#!/bin/sh\n".ljust(512, b"x") + bytes(1024)),
    (ArchiveFault.TRUNCATED, "", b""),
    (ArchiveFault.TRUNCATED, "", tar(("a", b"x"))[:1024]),
    (ArchiveFault.TRUNCATED, "", tar(("a", b"x"))[:1000]),
    (ArchiveFault.TRUNCATED, "a", tar(("a", bytes(2000)))[:1024]),
    (ArchiveFault.TRAILING_DATA, "", tar(("a", b"x")) + tar(("b", b"x"))),
    (ArchiveFault.COMPRESSED, "", gzip.compress(tar(("a", b"x")))),
    (ArchiveFault.FILE_TOO_LARGE, "a", tar(("a", bytes(5000)))),
    (ArchiveFault.FILE_TOO_LARGE, "a", patched(tar(("a", b"x")), 124, b"77777777777\0")),
    (ArchiveFault.ARCHIVE_TOO_LARGE, "", bytes(512 * 200)),
    (ArchiveFault.TOO_MANY, "", tar(*((f"f{n}", b"") for n in range(65)))),
]


@pytest.mark.parametrize(("finding", "path", "data"), UNSAFE, ids=[f"{c[0].name}-{c[1]!a}" for c in UNSAFE])
def test_unsafe_archives(finding: ArchiveFault, path: str, data: bytes) -> None:
    with pytest.raises(UnsafeArchive) as caught:
        bundle.read_archive(data, ArchiveLimits(archive_bytes=100_000, file_bytes=4000, members=64))
    assert (caught.value.finding, caught.value.path) == (finding, path)
    assert caught.value.problem.isprintable()
    assert caught.value.problem.endswith(".")


def pax_header(body: bytes, kind: bytes = b"x") -> bytes:
    """A pax header member with this body and a file after it."""
    padded = body + bytes(-len(body) % 512)
    return patched(tar(("p", body)), 156, kind)[:512] + padded + tar(("a", b"x"))


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (b"17 comment=abcde\n", None),
        (b"17 comment=abcde\n17 comment=abcde\n", ArchiveFault.UNSUPPORTED),
        (b"10 path=a\n", ArchiveFault.UNSUPPORTED),
        (b"18 comment=abcde\n", ArchiveFault.MALFORMED),
        (b"9999 comment=a\n", ArchiveFault.MALFORMED),
        (b"0 comment=a\n", ArchiveFault.MALFORMED),
        (b"-5 comment=a\n", ArchiveFault.MALFORMED),
        (b"x", ArchiveFault.MALFORMED),
        (b"14 commentabc\n", ArchiveFault.MALFORMED),
        (b"14 comment=\xff\xfe\n", ArchiveFault.UNSAFE_PATH),
        (b"14 comment=ab" + bytes(70_000), ArchiveFault.FILE_TOO_LARGE),
    ],
)
def test_global_pax_headers(body: bytes, finding: ArchiveFault | None) -> None:
    data = pax_header(body, b"g")
    if finding is None:
        assert bundle.read_archive(data).files == {"a": b"x"}
        return
    with pytest.raises(UnsafeArchive) as caught:
        bundle.read_archive(data)
    assert caught.value.finding is finding


def test_pax_headers_come_one_at_a_time_and_before_a_member() -> None:
    header = pax_header(b"10 path=b\n")[:1024]
    assert bundle.read_archive(header + tar(("a", b"x"))).files == {"b": b"x"}
    for data, finding in (
        (header * 2 + tar(("a", b"x")), ArchiveFault.MALFORMED),
        (header + bytes(1024), ArchiveFault.TRUNCATED),
    ):
        with pytest.raises(UnsafeArchive) as caught:
            bundle.read_archive(data)
        assert caught.value.finding is finding


PART = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1, max_size=30)
PATH = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATH, st.binary(max_size=1500), max_size=6)


@given(FILES)
def test_what_is_packed_is_read_back(files: dict[str, bytes]) -> None:
    try:
        data = bundle.pack(files)
    except UnsafeArchive as error:
        if error.finding not in (ArchiveFault.COLLISION, ArchiveFault.UNSAFE_PATH):
            raise
        return
    assert bundle.read_archive(data).files == files
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [member.name for member in archive] == sorted(files)


BASE = tar(("train.py", b"print(1)\n" * 90), info("a", b"5"), ("a/b", b"x"))


@given(st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.binary(min_size=1, max_size=12)), max_size=4))
def test_a_damaged_archive_is_read_or_refused(edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(BASE)
    for at, value in edits:
        data[at : at + len(value)] = value
    sound(bytes(data))


@given(st.binary(max_size=512), st.integers(0, 3))
def test_any_header_is_read_or_refused(header: bytes, tail: int) -> None:
    block = header.ljust(512, b"\0")
    sound(patched(patched(block, 257, b"ustar\x0000"), 136, b"00000000000\0") + bytes(512 * tail))


def sound(data: bytes) -> None:
    """Whatever is read holds only safe names and no more bytes than came in."""
    with contextlib.suppress(UnsafeArchive):
        files = bundle.read_archive(data).files
        assert sum(map(len, files.values())) <= len(data)
        checked(files)


def checked(files: Mapping[str, bytes]) -> None:
    """The tree rules, as an assertion."""
    try:
        bundle.check(files)
    except UnsafeArchive as error:
        pytest.fail(str(error))


def test_trees_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    bundle.write_tree(TREE, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    bundle.write_tree(TREE, tmp_path / "empty")
    assert bundle.read_tree(tmp_path / "new") == bundle.read_tree(tmp_path / "empty") == dict(sorted(TREE.items()))
    with pytest.raises(InvalidBundle, match="is not empty"):
        bundle.write_tree(TREE, tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "empty2")
    with pytest.raises(InvalidBundle, match="is not empty"):
        bundle.write_tree(TREE, tmp_path / "link")
    for path in ("../out", "a/../../out", "/out"):
        with pytest.raises(UnsafeArchive):
            bundle.write_tree({path: b"x"}, tmp_path / "third")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "link", "new"]


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (lambda path: path.symlink_to("train.py"), ArchiveFault.LINK),
        (lambda path: path.symlink_to("."), ArchiveFault.LINK),
        (os.mkfifo, ArchiveFault.DEVICE),
        (lambda path: path.write_bytes(bytes(2000)), ArchiveFault.FILE_TOO_LARGE),
    ],
)
def test_folders_with_more_than_plain_files(
    tmp_path: Path, make: Callable[[Path], object], finding: ArchiveFault
) -> None:
    (tmp_path / "train.py").write_bytes(b"x")
    for ignored in (".git", "__pycache__"):
        (tmp_path / ignored).mkdir()
        (tmp_path / ignored / "x").write_bytes(b"x")
    assert bundle.read_tree(tmp_path) == {"train.py": b"x"}
    make(tmp_path / "odd")
    with pytest.raises(UnsafeArchive) as caught:
        bundle.read_tree(tmp_path, ArchiveLimits(file_bytes=1000))
    assert (caught.value.finding, caught.value.path) == (finding, "odd")


def test_digest_is_of_the_tree() -> None:
    assert bundle.digest(TREE) == bundle.digest(dict(reversed(TREE.items())))
    others = [{**TREE, "x": b""}, {**TREE, "train.py": b""}, {"a": b"bc"}, {"ab": b"c"}, {}]
    assert len({bundle.digest(tree) for tree in [TREE, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("glob", "path", "mutable"),
    [
        ("train.py", "train.py", True),
        ("train.py", "Train.py", False),
        ("train.py", "a/train.py", False),
        ("*.py", "train.py", True),
        ("*.py", "a/train.py", False),
        ("*.py", "prepare.py", False),
        ("*.py", "PREPARE.PY", False),
        ("**/*.py", "train.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("**", "a/b/c.py", True),
        ("**", "prepare.py/x", False),
        ("src/", "src/a/b", True),
        ("src/", "src", False),
        ("src/**/x", "src/x", True),
        ("src/**/x", "src/a/b/x", True),
        ("src/**/x", "src/a/b/y", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].py", "b.py", True),
        ("/".join(["**"] * 30 + ["x"]), "/".join("a" * 30), False),
    ],
)
def test_surface(glob: str, path: str, mutable: bool) -> None:
    assert bundle.is_mutable(path, MutableSurface((glob,), ("prepare.py",), ())) is mutable


@pytest.mark.parametrize(
    ("candidate", "changed"),
    [
        ({}, []),
        (TREE, []),
        ({"train.py": b"new"}, []),
        ({**TREE, "train.py": b"new"}, []),
        ({**TREE, "prepare.py": b"new"}, ["prepare.py"]),
        ({"train.py": b"new", "Prepare.py": b""}, ["Prepare.py"]),
        ({"TRAIN.PY": b"new"}, ["TRAIN.PY"]),
        ({**TREE, "x": b"", "data/a/b.bin": b""}, ["data/a/b.bin", "x"]),
    ],
)
def test_changes_outside_the_surface(candidate: dict[str, bytes], changed: list[str]) -> None:
    assert bundle.changed_outside_surface(TREE, candidate, ARMLX) == changed
    assert bundle.overlay(TREE, candidate, ARMLX) == {
        **TREE,
        "train.py": candidate.get("train.py", TREE["train.py"]),
    }


def test_a_respelled_file_is_a_change_even_where_any_file_may_change() -> None:
    anything = MutableSurface(("**",), (), ())
    assert bundle.changed_outside_surface(TREE, {"TRAIN.PY": b"new"}, anything) == ["TRAIN.PY"]
    with pytest.raises(UnsafeArchive):
        bundle.overlay(TREE, {"TRAIN.PY": b"new"}, anything)


def test_findings_are_words_for_reports() -> None:
    assert json.loads(json.dumps(ArchiveFault.LINK)) == "a link"


SNAP = {"train.py": b"old", "prepare.py": b"p"}


@pytest.mark.parametrize(
    ("files", "read"),
    [
        ({"p-1.0/train.py": b"x"}, {"train.py": b"x"}),
        (
            {"p/train.py": b"x", "p/prepare.py": b"p", "p/more/a": b"y"},
            {"train.py": b"x", "prepare.py": b"p", "more/a": b"y"},
        ),
        ({"train.py": b"x"}, {"train.py": b"x"}),
        # which is meant is not clear, or nothing of the snapshot is there: as it stands
        ({"train.py": b"x", "p/train.py": b"y"}, None),
        ({"p/train.py": b"x", "q/prepare.py": b"y"}, None),
        ({"p/q/train.py": b"x"}, None),
        ({"p/other.py": b"x"}, None),
        ({}, None),
    ],
)
def test_one_folder_around_a_candidate_is_left_out(files: dict[str, bytes], read: dict[str, bytes] | None) -> None:
    assert bundle.unprefixed(files, SNAP) == (files if read is None else read)


def test_a_survey_says_all_that_is_wrong_and_what_is_there() -> None:
    data = tar(("a", b"x"), ("../b", b"y"), info("l", tarfile.SYMTYPE, "a"), ("a", b"z"), ("c", b"w"))
    found, faults = bundle.survey(data)
    assert [fault.finding for fault in faults] == [ArchiveFault.UNSAFE_PATH, ArchiveFault.LINK, ArchiveFault.DUPLICATE]
    assert found.files == {"a": b"x", "c": b"w"}
    found, faults = bundle.survey(data[:1024] + b"x" * 512)
    assert [fault.finding for fault in faults] == [ArchiveFault.MALFORMED]
    assert found.files == {"a": b"x"}
