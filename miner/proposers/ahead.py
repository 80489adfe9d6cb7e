"""Thinking ahead: a slow proposer, a model or an agent, is asked for its next candidate while a trial is measured.

One candidate is kept ready. It is on disk as soon as it is there, since it was paid for: a session that is killed and
starts again still has it. If the incumbent changed meanwhile, what the candidate changed is applied to the new one,
where it fits in exactly one way; otherwise it is dropped. What failed ahead fails when the candidate is asked for, so
that the proposer rests as if it had been asked then.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

from common.files import write_atomic
from miner.proposers import diffs
from miner.proposers.base import Candidate, Context, Pending, Proposer
from trainer.project import hyperparameters

MAX_READY = 4 * 1024 * 1024  # bytes of what is ready, on disk
_LEAVING = 2.0  # seconds that `close` waits for a thought to end


class Ahead:
    """A proposer that thinks while others measure. It waits for a thought under way and never has two."""

    def __init__(self, proposer: Proposer) -> None:
        self.name = proposer.name
        self._proposer = proposer
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._failure: BaseException | None = None

    def propose(self, context: Context) -> Candidate | None:
        """What is ready if it still fits, else what the proposer says now; then it thinks of the next one."""
        ready = self._ready(context)
        candidate = self._proposer.propose(context) if ready is None else ready
        if candidate is not None and not context.last and not context.stop():
            self._think(_after(context, candidate))
        return candidate

    def close(self) -> None:
        """End a thought under way, or leave it behind if it does not end at once."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(_LEAVING)

    def _think(self, context: Context) -> None:
        def stop() -> bool:
            return self._closed.is_set() or context.stop()

        def think() -> None:
            try:
                candidate = self._proposer.propose(replace(context, stop=stop))
                if candidate is not None:
                    _write(self._path(context), context.source, candidate)
            except BaseException as failure:  # told when the candidate is asked for
                self._failure = failure

        self._failure = None
        self._thread = threading.Thread(target=think, name=f"{self.name} ahead", daemon=True)
        self._thread.start()

    def _ready(self, context: Context) -> Candidate | None:
        """The candidate that was thought of, for the incumbent of now; raises what went wrong with the thought."""
        thread, self._thread = self._thread, None
        while thread is not None and thread.is_alive() and not context.stop():
            thread.join(0.2)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        found = _read(self._path(context))
        self._path(context).unlink(missing_ok=True)
        return None if found is None else _moved(*found, context)

    def _path(self, context: Context) -> Path:
        return context.folder / f"{self.name}-ready.json"


def _after(context: Context, candidate: Candidate) -> Context:
    """The context of the trial after this one's, which is being measured."""
    pending = Pending(context.number, hyperparameters.fingerprint(candidate.source), candidate.hypothesis)
    return replace(context, number=context.number + 1, pending=[*context.pending, pending])


def _moved(base: str, candidate: Candidate, context: Context) -> Candidate | None:
    """The candidate as a change of the incumbent of now; None where it does not fit, or was tried."""
    source = diffs.merged(base, candidate.source, context.source, context.known())
    return None if source is None else replace(candidate, source=source)


def _write(path: Path, base: str, candidate: Candidate) -> None:
    document = {"base": base, "source": candidate.source, "hypothesis": candidate.hypothesis}
    write_atomic(path, json.dumps(document).encode())


def _read(path: Path) -> tuple[str, Candidate] | None:
    """What is ready; None if there is nothing, or nothing that can be read."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_READY))
        texts = [document[name] for name in ("base", "source", "hypothesis")]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return (texts[0], Candidate(texts[1], texts[2])) if all(isinstance(text, str) for text in texts) else None
