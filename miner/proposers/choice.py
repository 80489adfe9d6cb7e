"""Which proposers a session has, as plain values, and how they are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainerError

if TYPE_CHECKING:
    from miner.proposers.base import Proposer
    from miner.proposers.mix import Mixture


@dataclass(frozen=True, slots=True)
class Proposing:
    """What was chosen on the command line; the defaults are those of `miner run`."""

    proposer: str = "edits,tune,crossover:0.5"
    agent_command: str | None = None
    agent_minutes: float = 20.0
    llm_url: str | None = None
    llm_model: str | None = None
    llm_max_calls: int | None = None
    llm_max_tokens: int | None = None
    llm_price: tuple[float, float] | None = None
    max_dollars: float | None = None
    patches: Path | None = None
    think_ahead: bool = True

    def build(self, *, seed: int, files: Mapping[str, bytes], say: Callable[[str], None]) -> Mixture:
        """The proposers on a project's snapshot `files`; TrainerError if an option is missing or does not fit."""
        from miner.proposers import mix

        makers: dict[str, Callable[[], Proposer]] = {
            "edits": lambda: self._edits(seed, say),
            "tune": lambda: self._tune(seed),
            "crossover": self._crossover,
            "agent": lambda: self._agent(files, say),
            "llm": lambda: self._llm(say),
            "patches": lambda: self._patches(say),
        }
        return mix.parse(self.proposer, makers, seed=seed, say=say)

    def check(self) -> None:
        """Refuse bad options before any long work begins."""
        self.build(seed=0, files={}, say=lambda _: None)

    @staticmethod
    def _tune(seed: int) -> Proposer:
        from miner.proposers.tune import Tune

        return Tune(seed)

    @staticmethod
    def _edits(seed: int, say: Callable[[str], None]) -> Proposer:
        from miner.proposers.edits.proposer import Edits

        return Edits(seed, say)

    @staticmethod
    def _crossover() -> Proposer:
        from miner.proposers.crossover import Crossover

        return Crossover()

    def _agent(self, files: Mapping[str, bytes], say: Callable[[str], None]) -> Proposer:
        from miner.proposers.agent import Agent

        made = Agent(_needed(self.agent_command, "agent", "--agent-command"), files, self.agent_minutes)
        return self._online(made, say, ahead=True)

    def _llm(self, say: Callable[[str], None]) -> Proposer:
        from miner.proposers.llm import Caps, Llm, is_local

        url, model = _needed(self.llm_url, "llm", "--llm-url"), _needed(self.llm_model, "llm", "--llm-model")
        made = Llm(url, model, Caps(self.llm_max_calls, self.llm_max_tokens), say, price=self.llm_price)
        # A model on this machine would take from a run what is being measured.
        return self._online(made, say, ahead=not is_local(url))

    def _online(self, proposer: Proposer, say: Callable[[str], None], *, ahead: bool) -> Proposer:
        """Under the cap in dollars, and thinking ahead where that is wanted."""
        from miner.proposers.ahead import Ahead
        from miner.proposers.usage import Capped

        made = proposer if self.max_dollars is None else Capped(proposer, self.max_dollars, say)
        return Ahead(made) if ahead and self.think_ahead else made

    def _patches(self, say: Callable[[str], None]) -> Proposer:
        from miner.proposers.patches import Patches

        return Patches(Path(_needed(self.patches, "patches", "--patches")), say)


def _needed(value: Any, name: str, option: str) -> Any:
    if value is None:
        raise TrainerError(f"--proposer {name} needs {option}.")
    return value
