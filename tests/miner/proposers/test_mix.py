"""Mixtures: the draw follows from seed and number, failures are survived and counted, candidates are checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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


def test_a_failing_one_is_set_aside_with_words_and_the_other_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    bad = Scripted("bad", [FAILED] * 50)
    found = session(mixed("bad:1000,good:1", bad, Scripted("good", candidates("g", 9)), said=said), tmp_path, 9)
    assert found == ["good"] * 9
    assert bad.calls == mix.PATIENCE
    assert sum("skipped" in line for line in said) == 1
    assert any("It did not work. Mend it." in line for line in said)


def test_failures_count_only_in_a_row(tmp_path: Path) -> None:
    made = candidates("a", 20)
    answers: list[Candidate | ProposerFailed | None] = []
    for candidate in made:
        answers += [FAILED] * (mix.PATIENCE - 1) + [candidate]
    assert session(mixed("a", Scripted("a", answers)), tmp_path, 20) == ["a"] * 20


def test_none_left_but_failures_is_an_error_with_the_cure(tmp_path: Path) -> None:
    bad = Scripted("bad", [FAILED] * 50)
    with pytest.raises(ProposerFailed, match=r"failures: bad\. It did not work\. Mend it\."):
        mixed("bad,done", bad, Scripted("done", [])).propose(context(tmp_path))
    assert bad.calls == mix.PATIENCE


def test_a_stop_ends_the_turn(tmp_path: Path) -> None:
    bad = Scripted("bad", [FAILED] * 50)
    seen = context(tmp_path)
    stopped = Context(seen.source, seen.protocol, seen.history, "", 1, tmp_path, stop=lambda: bad.calls >= 2)
    assert mixed("bad", bad).propose(stopped) is None
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
    with pytest.raises(ProposerFailed, match=words):
        mixed("a", Scripted("a", [Candidate(source, "x")] * 9)).propose(context(tmp_path))


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
    mixture = mixed("a", Scripted("a", [lottery, better]), said=said)
    candidate = mixture.propose(context(tmp_path))
    assert candidate is not None
    assert candidate.hypothesis == "an idea"
    assert any("nothing but a seed" in line for line in said)
