"""What can go wrong with a protocol, a bundle, an environment or a run."""

from __future__ import annotations

from common.errors import Refused


class TrainerError(Refused):
    """Any refusal of this package."""


class InvalidProtocol(TrainerError):
    """A protocol.json that does not validate; the message names the path in the document."""


class InvalidBundle(TrainerError):
    """A snapshot or proposal archive that is malformed, unsafe or not what its hash says."""


class EnvironmentNotReady(TrainerError):
    """The locked environment, the data snapshot or the sandbox is missing or altered."""


class StopRun(Exception):
    """Ends the run whose lines are being watched; the text says why. No refusal, so no TrainerError."""


INSTALL_BUBBLEWRAP = "Run `sudo apt-get install bubblewrap`."
STOPPED, UNFIT = "stopped", "unfit"
"""Why a run has no value though its code did not fail: somebody ended it (StopRun), or this machine was unfit."""
