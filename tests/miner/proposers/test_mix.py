"""Mixtures: the draw follows from seed and number, failures are survived and counted, candidates are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from miner.proposers import mix
from miner.proposers.base import Candidate, Context, Proposer, ProposerFailed
from tests.miner.proposers.support import SOURCE, baseline, context, tried
from trainer.errors import TrainerError

SMALL = "LR = 0.02\n"


class Scripted:
    """Gives what the list says, one entry per call; then nothing."""

    def __init__(self, name: str, answers: Sequence[Candidate | ProposerFailed | None]) -> None:
        self.name, self.answers, self.calls = name, list(answers), 0

    def propose(self, context: Context) -> Candidate | None:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, ProposerFailed):
            raise answer
        return answer


def candidates(name: str, count: int) -> list[Candidate]:
    return [Candidate(f"{SMALL}{name.upper()} = {n}\n", f"{name} {n}") for n in range(count)]


FAILED = ProposerFailed("It did not work.", "Mend it.")


def mixed(spec: str, *parts: Scripted, seed: int = 1, said: list[str] | None = None) -> mix.Mixture:
    makers: dict[str, Callable[[], Proposer]] = {part.name: lambda part=part: part for part in parts}  # type: ignore[misc]
    heard = said if said is not None else []
    return mix.parse(spec, makers, seed=seed, say=heard.append)


def session(mixture: mix.Mixture, folder: Path, count: int) -> list[str]:
    """Who proposed each of `count` trials."""
    history, found = [baseline(SMALL)], []
    for number in range(1, count + 1):
        candidate = mixture.propose(context(folder, history, source=SMALL))
        if candidate is None:
            break
        found.append(candidate.proposer)
        history.append(tried(number, candidate, SMALL))
    return found


def test_weights_and_determinism(tmp_path: Path) -> None:
    def fresh() -> mix.Mixture:
        return mixed("a:3,b:1", Scripted("a", candidates("a", 200)), Scripted("b", candidates("b", 200)))

    found = session(fresh(), tmp_path, 120)
    counts = Counter(found)
    assert counts["a"] + counts["b"] == 120
    assert 70 <= counts["a"] <= 110
    assert session(fresh(), tmp_path, 120) == found


def test_who_has_nothing_left_is_passed_over(tmp_path: Path) -> None:
    found = session(mixed("a,b", Scripted("a", candidates("a", 2)), Scripted("b", candidates("b", 5))), tmp_path, 20)
    assert Counter(found) == {"a": 2, "b": 5}


class Daring(Scripted):
    """Calls its first `bold` candidates worth more than anybody's."""

    def __init__(self, name: str, answers: Sequence[Candidate | ProposerFailed | None], bold: int) -> None:
        super().__init__(name, answers)
        self.bold = bold

    def is_bold(self, context: Context) -> bool:
        return self.calls < self.bold


def test_what_is_worth_more_than_others_are_likely_to_have_comes_first(tmp_path: Path) -> None:
    parts = Scripted("a", candidates("a", 50)), Daring("b", candidates("b", 50), 3)
    found = session(mixed("a:100,b:0.01", *parts), tmp_path, 20)
    assert found == ["b"] * 3 + ["a"] * 17


def test_one_that_is_bold_and_fails_gives_the_turn_away(tmp_path: Path) -> None:
    parts = Scripted("a", candidates("a", 1)), Daring("b", [FAILED], 9)
    assert session(mixed("a,b", *parts), tmp_path, 1) == ["a"]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.01)


def cooling(
    *parts: Scripted, clock: Clock, said: list[str] | None = None, standby: Sequence[Scripted] = ()
) -> mix.Mixture:
    heard = said if said is not None else []
    pairs = [(part, 1.0) for part in parts]
    return mix.Mixture(pairs, 1, heard.append, standby=standby, clock=clock, sleep=clock.sleep)


def test_one_that_fails_cools_down_with_words_and_the_other_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    bad, good, clock = Scripted("bad", [FAILED] * 50), Scripted("good", candidates("g", 9)), Clock()
    assert session(cooling(bad, good, clock=clock, said=said), tmp_path, 9) == ["good"] * 9
    assert bad.calls <= 2
    assert clock.now < 1
    assert any("It did not work. Mend it." in line for line in said)


def test_a_server_that_asks_for_time_gets_it(tmp_path: Path) -> None:
    limited = ProposerFailed("Usage limit reached.", retry_after=7200.0)
    model, good, clock = Scripted("llm", [limited, *candidates("m", 5)]), Scripted("good", candidates("g", 30)), Clock()
    mixture = cooling(model, good, clock=clock)
    found = session(mixture, tmp_path, 10)
    assert set(found) == {"good"}
    assert model.calls == 1
    clock.now = 7201.0
    assert "llm" in session(mixture, tmp_path, 12)


def test_alone_it_waits_instead_of_ending_the_session_and_pauses_grow(tmp_path: Path) -> None:
    clock = Clock()
    bad = Scripted("bad", [*[FAILED] * 6, *candidates("a", 1)])
    assert session(cooling(bad, clock=clock), tmp_path, 1) == ["bad"]
    assert clock.now == pytest.approx(30 + 60 + 120 + 240 + 480, abs=2)


def test_the_offline_ones_stand_in_while_all_that_were_named_rest(tmp_path: Path) -> None:
    clock = Clock()
    away = Scripted("llm", [ProposerFailed("Down.", retry_after=3600.0)] * 9)
    spare = Scripted("tune", candidates("t", 9))
    assert session(cooling(away, clock=clock, standby=[spare]), tmp_path, 5) == ["tune"] * 5
    assert clock.now < 1


def test_what_only_rests_beyond_the_end_of_the_session_is_not_waited_for(tmp_path: Path) -> None:
    clock = Clock()
    away = Scripted("llm", [ProposerFailed("Down.", retry_after=3600.0)] * 9)
    seen = replace(context(tmp_path, source=SMALL), seconds_left=600.0)
    assert cooling(away, clock=clock).propose(seen) is None
    assert clock.now < 1


def test_online_ones_have_the_offline_ones_on_standby() -> None:
    def spare(spec: str) -> list[str]:
        parts = [Scripted(name, []) for name in ("edits", "tune", "llm", "patches")]
        return [part.proposer.name for part in mixed(spec, *parts)._standby]

    assert spare("llm") == ["edits", "tune"]
    assert spare("llm,tune") == ["edits"]
    assert spare("patches") == []
    assert spare("edits,tune") == []


def test_who_found_more_is_asked_more_often() -> None:
    history = [baseline(SMALL)]
    for number in range(1, 9):
        kept = number % 2 == 0
        made = Candidate(f"LR = 0.{number}\n", "", "edits" if number % 4 < 2 else "tune")
        gain = 0.05 if kept and made.proposer == "edits" else -0.01
        history.append(tried(number, made, SMALL, gain, "keep" if gain > 0 else "discard"))
    assert mix.bent("edits", 1.0, history) > 1.3 > 1.0 > mix.bent("tune", 1.0, history) >= 1 / mix.BEND
    assert mix.bent("edits", 1.0, history[:1]) == 1.0


def test_a_stop_ends_the_turn(tmp_path: Path) -> None:
    bad = Scripted("bad", [FAILED] * 50)
    seen = context(tmp_path)
    stopped = Context(seen.source, seen.protocol, seen.history, "", 1, tmp_path, stop=lambda: bad.calls >= 2)
    assert cooling(bad, clock=Clock()).propose(stopped) is None
    assert bad.calls == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(:\n", "not valid Python"),
        (SOURCE, "already tried"),
        (SOURCE.replace("DEPTH = 1 ", "DEPTH  =  1 "), "already tried"),
        ("x = 1\n" * 200_000, "not valid Python"),
    ],
)
def test_what_is_no_new_script_counts_as_a_failure(tmp_path: Path, source: str, words: str) -> None:
    said: list[str] = []
    good = Candidate(SOURCE + "\nX = 1\n", "an idea")
    found = cooling(Scripted("a", [Candidate(source, "x"), good]), clock=Clock(), said=said).propose(context(tmp_path))
    assert found == Candidate(good.source, "an idea", "a")
    assert any(words in line for line in said)


def test_a_hypothesis_is_one_printable_line(tmp_path: Path) -> None:
    made = [Candidate(SOURCE + "\nX = 1\n", "a\x1b[31mb\n c\u202e" + "d" * 500)]
    candidate = mixed("a", Scripted("a", made)).propose(context(tmp_path))
    assert candidate is not None
    assert candidate.hypothesis.startswith("a[31mb cddd")
    assert len(candidate.hypothesis) == 200


@pytest.mark.parametrize("spec", ["", "c", "a,", "a:0", "a:-1", "a:nan", "a:inf", "a:x", "a:", "a,a", "a:1:2"])
def test_a_specification_that_does_not_fit(spec: str) -> None:
    with pytest.raises(TrainerError):
        mixed(spec, Scripted("a", []), Scripted("b", []))


def test_a_change_of_nothing_but_a_seed_costs_no_trial(tmp_path: Path) -> None:
    lottery = Candidate(SOURCE.replace("SEED = 42", "SEED = 7"), "a luckier seed")
    better = Candidate(SOURCE + "\nX = 1\n", "an idea")
    said: list[str] = []
    mixture = cooling(Scripted("a", [lottery, better]), clock=Clock(), said=said)
    candidate = mixture.propose(context(tmp_path))
    assert candidate is not None
    assert candidate.hypothesis == "an idea"
    assert any("nothing but a seed" in line for line in said)
