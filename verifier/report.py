"""What this verifier has done: judged, settled, left over, and what waits on chain. Reads only, and takes no lock.

A check counts by its attestation, whose signature must be good; a settlement by its record. What does not parse is
named, not left out. `text` and `as_json` are pure; `verifier.report_page` makes the page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from solders.signature import Signature

from chain.errors import InvalidData
from chain.money.client import Client
from chain.network.base import sol
from chain.pages import show
from chain.program.accounts import Proposal, ProposalStatus
from common.files import read_regular
from common.jsonl import entries
from common.text import counted, lasted, printable
from verifier import attestation
from verifier.record import RUNS

KINDS = ("approve", "reject", "release")
MAX_FOLDERS = 5_000
MAX_FILE = 1 << 22  # bytes
MAX_FEES = 200  # transactions whose fee is asked for, the newest
DAYS = 35
SHOWN = 30  # checks that the text lists
_FILE = re.compile(r"attestation-[0-9a-f]{16}\.json")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Checked:
    """One check. `proposal` is None for a local file; `settled` says that its verdict was carried out on chain;
    `seconds` is what its runs took."""

    at: str
    project: int
    proposal: int | None
    kind: str
    reason: str
    delta: float | None
    runs: int
    seconds: float
    settled: bool
    attestation: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A proposal that is pending or in review; `reviewer` is its address while in review, else ""."""

    proposal: int
    status: str
    submitted: int
    stake: int
    reviewer: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, oldest first. `queue` and `fees` (lamports) are None where the chain was not asked; `signatures` are
    those of the transactions that landed."""

    network: str
    project: int | None
    checks: Sequence[Checked]
    leftovers: Sequence[str]
    signatures: Sequence[str]
    queue: Sequence[Waiting] | None = None
    fees: int | None = None
    note: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def totals(self) -> Counter[str]:
        """Checks by verdict."""
        return Counter(entry.kind for entry in self.checks)

    @property
    def hours(self) -> float:
        """Machine hours that the runs took."""
        return sum(entry.seconds for entry in self.checks) / 3600

    @property
    def days(self) -> list[tuple[date, Counter[str]]]:
        """The verdicts of each of the last DAYS days (UTC), oldest first."""
        found = {self.now.date() - timedelta(days=back): Counter[str]() for back in range(DAYS - 1, -1, -1)}
        for entry in self.checks:
            day = _day(entry.at)
            if day in found:
                found[day][entry.kind] += 1
        return list(found.items())


def gather(home: Path, network: str, project: int | None) -> Report:
    """What the records in `home` say of a network, and of one project of it where one is given."""
    checks: list[Checked] = []
    leftovers: list[str] = []
    signatures: list[str] = []
    root = home / "verify"
    prefix = f"{network}-".replace("/", "_").replace(":", "_")
    folders = sorted(root.iterdir())[:MAX_FOLDERS] if root.is_dir() else []
    for folder in folders:
        if not folder.name.startswith(prefix) or not folder.is_dir():
            continue
        name = folder.name.removeprefix(prefix)
        record, damage = _record(folder)
        settled = {e.get("attestation") for e in record if e["event"] == "verdict"} if _landed(record) else set()
        known = list(_attested(folder, network, settled, leftovers))
        if project is not None and known and all(entry.project != project for entry in known):
            continue
        checks += [entry for entry in known if project is None or entry.project == project]
        signatures += [str(e["signature"]) for e in record if e["event"] == "landed" and "signature" in e]
        leftovers += [f"proposal {name}: {words}" for words in [*damage, *_left(folder, record, bool(known))]]
    checks.sort(key=lambda entry: (entry.at, entry.proposal or -1))
    return Report(network, project, checks, leftovers, signatures)


def _landed(record: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last transaction after a verdict landed."""
    after = False
    for entry in record:
        if entry["event"] == "verdict":
            after = True
        elif entry["event"] == "landed" and after:
            return True
    return False


def _record(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A settlement's record, as far as it parses, and what is wrong with it; half a last line is an interruption's."""
    path, found = folder / "settlement.jsonl", list[dict[str, Any]]()
    try:
        content, _ = read_regular(path, MAX_FILE)
        found.extend(e for e, _ in entries(content, path, InvalidData, "") if isinstance(e.get("event"), str))
    except FileNotFoundError:
        pass
    except OSError as error:
        return found, [f"settlement.jsonl cannot be read: {error.strerror}"]
    except InvalidData as error:
        return found, [printable(error.problem, 300)]
    return found, []


def _attested(folder: Path, network: str, settled: set[Any], leftovers: list[str]) -> Iterator[Checked]:
    for path in sorted(folder.iterdir()):
        if not _FILE.fullmatch(path.name):
            continue
        try:
            _, body = attestation.open_envelope(read_regular(path, attestation.MAX_BYTES + 1)[0])
            entry = _checked(body["predicate"], network, path.name, settled)
        except (OSError, InvalidData, KeyError, TypeError, ValueError, AttributeError) as error:
            why = error.problem if isinstance(error, InvalidData) else f"{type(error).__name__} {error}"
            leftovers.append(f"{folder.name}/{path.name} is no attestation of ours: {printable(why, 200)}")
            continue
        if entry is not None:
            yield entry


def _checked(body: Mapping[str, Any], network: str, name: str, settled: set[Any]) -> Checked | None:
    if body["network"] != network:
        return None  # of a network whose folders begin alike
    runs, compared, proposal = body["runs"], body.get("comparison"), body["proposal"]
    digest = name.removeprefix("attestation-").removesuffix(".json")
    return Checked(
        datetime.strptime(body["createdAt"], _TIME).replace(tzinfo=UTC).strftime(_TIME),
        int(body["project"]),
        None if proposal is None else int(proposal),
        printable(str(body["verdict"]["kind"]), 20),
        printable(str(body["verdict"]["reason"]), 40),
        float(compared["delta"]) if compared else None,
        len(runs),
        sum(float(run["seconds"]) for run in runs),
        any(str(one).startswith(digest) for one in settled),
        digest,
    )


def _left(folder: Path, record: Sequence[Mapping[str, Any]], attested: bool) -> Iterator[str]:
    """What an interruption left, with its cure."""
    resume = "run the same command again to resume"
    open_, claimed, lapse = None, False, None
    for entry in record:
        match entry["event"]:
            case "sent":
                open_ = entry.get("action")
            case "landed" | "dead":
                claimed = open_ == "claim" and entry["event"] == "landed"
                open_ = None
            case "left_to_lapse":
                lapse = entry.get("until")
    if open_ is not None:
        yield f"{printable(str(open_), 20)} was sent, and its outcome is not known; {resume}"
    elif claimed and lapse is None:
        yield f"the review was claimed and not settled; {resume}"
    if isinstance(lapse, int):
        yield f"not released: its lock lapses at {show.when(lapse)} UTC"
    if not attested and (folder / RUNS).exists():
        yield f"a check was interrupted; {resume}"


def waiting(proposals: Sequence[Proposal]) -> list[Waiting]:
    """What is pending or in review, oldest first."""
    open_ = [p for p in proposals if p.status in (ProposalStatus.PENDING, ProposalStatus.IN_REVIEW)]
    return [
        Waiting(
            entry.id,
            show.status_words(entry.status),
            entry.submitted_at,
            entry.stake,
            str(entry.reviewer) if entry.status is ProposalStatus.IN_REVIEW else "",
        )
        for entry in sorted(open_, key=lambda entry: entry.id)
    ]


def fees(client: Client, signatures: Sequence[str]) -> int:
    """Lamports that these transactions cost in fees, of the newest MAX_FEES; what the node forgot is not counted."""
    found = 0
    for text in signatures[-MAX_FEES:]:
        try:
            receipt = client.network.transaction(Signature.from_string(text))
        except ValueError:
            continue
        found += receipt.fee if receipt else 0
    return found


def as_json(found: Report) -> dict[str, Any]:
    """For scripts."""
    return {
        "network": found.network,
        "project": found.project,
        "checks": [asdict(entry) for entry in found.checks],
        "verdicts": {kind: found.totals[kind] for kind in KINDS},
        "settled": sum(entry.settled for entry in found.checks),
        "machine_hours": found.hours,
        "transactions": len(found.signatures),
        "fees_lamports": found.fees,
        "queue": None if found.queue is None else [asdict(entry) for entry in found.queue],
        "days": [{"day": str(day), **{kind: n[kind] for kind in KINDS}} for day, n in found.days if n],
        "leftovers": list(found.leftovers),
        "note": found.note or None,
    }


def text(found: Report) -> str:
    """For people."""
    lines = [f"verifier on {found.network}" + ("" if found.project is None else f", project {found.project}"), ""]
    lines += [f"  {name:<10} {value}{more and f' ({more})'}" for name, value, more in figures(found)]
    if found.note:
        lines += ["", f"! {found.note}"]
    if found.queue is not None:
        lines += ["", "Queue" if found.queue else "Queue: nothing is pending."]
        lines += [f"  proposal {w.proposal:<6} {w.status:<10} submitted {show.when(w.submitted)}  {w.reviewer}".rstrip()
                  for w in found.queue[:SHOWN]]  # fmt: skip
    lines += ["", f"Judged{'' if len(found.checks) <= SHOWN else f', the last {SHOWN}'}"]
    lines += [f"  {row}" for row in map(_line, found.checks[: -SHOWN - 1 : -1])] or ["  nothing yet"]
    busy = [(day, counts) for day, counts in found.days if counts]
    if busy:
        lines += ["", "By day"]
        lines += [f"  {day}  " + ", ".join(f"{n[kind]} {kind}" for kind in KINDS if n[kind]) for day, n in busy]
    lines += ["", "Left over" if found.leftovers else "Nothing is left over."]
    lines += [f"  {words}" for words in found.leftovers]
    return "\n".join(lines)


def figures(found: Report) -> list[tuple[str, str, str]]:
    """The totals: a name, a figure and what belongs to it."""
    spent = "" if found.fees is None else f", {sol(found.fees)} in fees"
    return [
        ("checks", str(len(found.checks)), ", ".join(f"{found.totals[kind]} {kind}" for kind in KINDS)),
        ("settled", str(sum(entry.settled for entry in found.checks)), ""),
        ("time", lasted(3600 * found.hours), f"{counted(len(found.signatures), 'transaction')}{spent}"),
        ("queue", "not asked" if found.queue is None else counted(len(found.queue), "proposal"), ""),
    ]


def _line(entry: Checked) -> str:
    what = "local file" if entry.proposal is None else f"proposal {entry.proposal}"
    delta = "" if entry.delta is None else f"{entry.delta:+.6f}".replace("-", "−")
    done = "settled" if entry.settled else ""
    return (
        f"{entry.at[:16].replace('T', ' ')}  {what:<14} {entry.kind:<8} {entry.reason:<22} {delta:>10}  "
        f"{entry.runs:>2} runs {entry.seconds / 60:>6.1f} min  {done}".rstrip()
    )


def _day(at: str) -> date | None:
    try:
        return datetime.strptime(at, _TIME).replace(tzinfo=UTC).date()
    except ValueError:
        return None
