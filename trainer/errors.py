"""What can go wrong with a protocol, a bundle, an environment or a run.

Every refusal says what was expected, what was found and what to do about it. The base is click's
own exception, so that a command prints it as one line on stderr and exits with status 1, and a
program that imports these modules catches `TrainerError`.
"""

from __future__ import annotations

import click


class TrainerError(click.ClickException):
    """A refusal with a cure.

    `problem` is one sentence on what was expected and what was found; `cure` is one sentence on
    what to do, or empty where nothing can be done.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem} {cure}".strip())
        self.problem = problem
        self.cure = cure


class InvalidProtocol(TrainerError):
    """A protocol.json that does not validate; the message names the path in the document."""


class InvalidBundle(TrainerError):
    """A snapshot or proposal archive that is malformed, unsafe or not what its hash says."""


class EnvironmentNotReady(TrainerError):
    """The locked environment, the data snapshot or the sandbox is missing or altered."""


class StopRun(Exception):
    """Ends the run whose lines are being watched; the text says why. No refusal, so no TrainerError."""
