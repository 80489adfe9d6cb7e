"""Whose fault it is that a run died: what a Mac's GPU driver does to a process is no fault of its code.

A crashed run's last output is the candidate's word. Believing it can only turn a rejection into a release, which
approves nothing; a fault is told in words of ours, and none of the output is passed on.
"""

from __future__ import annotations

import platform
import re
import signal
from dataclasses import dataclass
from typing import Final, Literal

GPU_PATIENCE: Final = {"AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1"}
"""Environment of a run on a Mac: macOS 26 kills long GPU work while the display is on, less often with this."""

_LAST_BYTES: Final = 16 << 10
_CALLBACK: Final = re.compile(
    rb"kIOGPUCommandBufferCallbackError(ImpactingInteractivity|OutOfMemory|Timeout|Hang|InnocentVictim|PageFault|"
    rb"SubmissionsIgnored|Internal)?"
)
_DISPLAY: Final = "let the display sleep while this machine measures (`pmset displaysleepnow`)"


@dataclass(frozen=True, slots=True)
class ExitFault:
    """Why a process died, in `words` of ours."""

    kind: Literal["driver", "refused", "killed"]  # by the GPU driver, refused memory by Metal, or by the system
    words: str


def of_exit(code: int, output: bytes, *, system: str | None = None) -> ExitFault | None:
    """What a process's exit status (negative, or 128 + n, for signal n) and last output show; None for its own doing.

    `system` is platform.system()'s word, of this machine where None.
    """
    if code == 0:
        return None
    number = -code if code < 0 else code - 128
    if (system or platform.system()) == "Darwin":
        last = output[-_LAST_BYTES:]
        found = _CALLBACK.search(last)
        if found or b"[METAL]" in last:
            name = (found[1] or b"").decode() if found else ""
            return ExitFault("driver", f"this machine's GPU driver ended it ({name or 'Metal error'}); {_DISPLAY}")
        if b"[metal::malloc]" in last:
            return ExitFault("refused", "Metal refused it memory on this machine")
    if number == signal.SIGKILL:
        return ExitFault("killed", "the system killed it, as it does where memory runs out")
    return None
