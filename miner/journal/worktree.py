"""The work tree: a git repository of the project's snapshot where every experiment is a commit.

The branch `autoresearch/<tag>` moves only to what was kept. A discarded experiment's commit stays
reachable under `refs/experiments/`, so that nothing that was tried is lost. `pack` puts loose objects and refs
together once there are many.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common import git
from trainer.errors import EnvironmentNotReady
from trainer.project import bundle

LOOSE = 2_000  # objects, about 650 trials or 10 MB
_AT_ONCE = 500  # files that one git process gives


class Workspace:
    """A git work tree at `path` on `autoresearch/<tag>`."""

    def __init__(self, path: Path, tag: str) -> None:
        self.path = path
        self.branch = f"autoresearch/{tag}"

    @classmethod
    def open(cls, path: Path, tag: str, snapshot: Mapping[str, bytes]) -> Workspace:
        """Open the work tree, creating it from the snapshot's files where there is none."""
        workspace = cls(path, tag)
        if (path / ".git").exists():
            # A session has its tree to itself, so these are what a killed git left.
            for lock in (path / ".git").rglob("*.lock"):
                lock.unlink(missing_ok=True)
            return workspace
        new = cls(path.with_name(f".{path.name}.new"), tag)
        shutil.rmtree(new.path, ignore_errors=True)
        bundle.write_tree(dict(snapshot), new.path)
        new._git("init", "--quiet", "--initial-branch", new.branch)
        new._git("add", "--all", "--force")
        new._git("commit", "--quiet", "--message", "snapshot of the project")
        try:
            new.path.replace(path)
        except OSError as error:
            raise EnvironmentNotReady(
                f"Cannot create the work tree {path}: {error.strerror}.", "Move that folder away."
            ) from error
        return workspace

    def head(self) -> str:
        """The commit of the incumbent."""
        return self._git("rev-parse", self.branch)

    def read(self, commit: str, name: str) -> str:
        """The text of a file at a commit."""
        return self._git("show", f"{commit}:{name}", strip=False)

    def read_many(self, commits: Sequence[str], name: str) -> list[str]:
        """The texts of a file at several commits, by few git processes."""
        found: list[str] = []
        for first in range(0, len(commits), _AT_ONCE):
            some = commits[first : first + _AT_ONCE]
            try:
                read = git.blobs(self.path, [f"{commit}:{name}" for commit in some], environment=self._variables)
            except git.GitFailed as error:
                raise _refused(error) from None
            found += [data.decode() for data in read]
        return found

    def commit(self, number: int, source: str, hypothesis: str, *, name: str = "train.py") -> str:
        """Commit a candidate on top of the incumbent without moving the branch; its hash."""
        return self._commit(f"refs/experiments/{number:04d}", source, f"experiment: {hypothesis}", name)

    def adopt(self, source: str, message: str, *, name: str = "train.py") -> str:
        """Commit code from outside on top of the incumbent without moving the branch; its hash."""
        commit = self._commit("refs/frontier/latest", source, message, name)
        self._git("update-ref", f"refs/frontier/{commit[:12]}", commit)
        return commit

    def fork(self, tag: str, files: Mapping[str, bytes], message: str) -> Workspace:
        """Check out a new branch `autoresearch/<tag>` with one commit on top: these files, and no others."""
        other = Workspace(self.path, tag)
        self._git("checkout", "--quiet", "-b", other.branch)
        for name in self._run(["ls-files", "-z"], b"", {}).decode().split("\0"):
            if name and name not in files:
                (self.path / name).unlink(missing_ok=True)
        for name, data in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._git("add", "--all", "--force")
        self._git("commit", "--quiet", "--allow-empty", "--message", message)
        return other

    def _commit(self, ref: str, source: str, message: str, name: str) -> str:
        blob = self._git("hash-object", "-w", "--stdin", given=source)
        base = self.head()
        index = {"GIT_INDEX_FILE": str(self.path / ".git" / "candidate-index")}
        self._git("read-tree", base, environment=index)
        self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", environment=index)
        tree = self._git("write-tree", environment=index)
        commit = self._git("commit-tree", tree, "-p", base, "-m", message)
        self._git("update-ref", ref, commit)
        return commit

    def keep(self, commit: str) -> None:
        """Make a candidate the incumbent: the branch and the files move to it."""
        self._git("reset", "--hard", "--quiet", commit)

    def pack(self) -> None:
        """Put loose objects and refs into packs if there are over LOOSE; for when no trial runs. Nothing is lost, and
        that it does not work is no reason to stop: the next call tries again.
        """
        settings = {"gc.auto": str(LOOSE), "gc.autoDetach": "false", "gc.packRefs": "true"}
        with suppress(EnvironmentNotReady):
            self._git(
                *(part for pair in settings.items() for part in ("-c", "=".join(pair))), "gc", "--auto", "--quiet"
            )

    def tree(self, commit: str) -> str:
        """The hash of a commit's tree."""
        return self._git("rev-parse", f"{commit}^{{tree}}")

    def diff(self, base: str, commit: str) -> str:
        """What changed between two commits, as a unified diff; nothing that the tree says is run or applied."""
        plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--end-of-options"]
        return self._run(["diff", *plain, base, commit, "--"], b"", {}).decode(errors="replace")

    def diffs(self, commits: Sequence[str]) -> dict[tuple[str, str], str]:
        """What each commit changed of its parent, as `diff` gives it, by (parent, commit); by one git process."""
        plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--patch"]
        asked = "".join(f"{commit}\n" for commit in dict.fromkeys(commits)).encode()
        form = "--format=tformat:%x00%P %H"
        out = self._run(["log", "--no-walk=unsorted", "--stdin", form, *plain], asked, {}) if asked else b""
        found = {}
        for part in out.decode(errors="replace").split("\0")[1:]:
            names, _, text = part.partition("\n")
            parent, _, commit = names.partition(" ")
            found[parent, commit] = text.removeprefix("\n")
        return found

    def _git(
        self,
        *arguments: str,
        given: str = "",
        environment: Mapping[str, str] | None = None,
        strip: bool = True,
    ) -> str:
        out = self._run(list(arguments), given.encode(), environment or {}).decode()
        return out.strip() if strip else out

    def _run(self, arguments: list[str], given: bytes, environment: Mapping[str, str]) -> bytes:
        try:
            return git.run(self.path, *arguments, environment={**self._variables, **environment}, given=given)
        except git.GitFailed as error:
            raise _refused(error) from None

    @property
    def _variables(self) -> dict[str, str]:
        return git.isolated(self.path)


def _refused(error: git.GitFailed) -> EnvironmentNotReady:
    cure = error.cure or "Move that folder away to start from the project's snapshot again."
    return EnvironmentNotReady(error.problem, cure)
