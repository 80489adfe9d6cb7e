"""Who ended a run: the code, this machine's GPU driver, or memory that ran out."""

from __future__ import annotations

import signal

import pytest

from trainer.machine.faults import of_exit
from trainer.measurement.outcomes import ended
from trainer.measurement.values import Failure, Phase
from trainer.sandbox import JobOutcome

ABORT = 128 + signal.SIGABRT
WATCHDOG = (
    b"libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    b"failed: Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)\n"
)
MALLOC = (
    b"RuntimeError: [metal::malloc] Attempting to allocate 17179869184 bytes which is greater than the maximum allowed "
    b"buffer size of 14302248960 bytes.\n"
)
DRIVER = (
    b"[METAL] Command buffer execution failed: Caused GPU Hang Error (00000003:kIOGPUCommandBufferCallbackErrorHang)"
)


@pytest.mark.parametrize(
    ("code", "output", "kind", "words"),
    [
        (ABORT, WATCHDOG, "driver", "ImpactingInteractivity"),
        (-signal.SIGABRT, WATCHDOG, "driver", "displaysleepnow"),
        (1, b"Traceback\n" + DRIVER, "driver", "Hang"),
        (ABORT, b"[METAL] Failed to create command queue", "driver", "Metal error"),
        (ABORT, b"kIOGPUCommandBufferCallbackErrorSTOLEN-SECRET", "driver", "Metal error"),
        (1, MALLOC, "refused", "Metal refused it memory"),
        (128 + signal.SIGKILL, b"", "killed", "memory"),
        (1, b"ValueError: no\n", None, ""),
        (ABORT, b"Assertion failed\n", None, ""),
        (0, WATCHDOG, None, ""),
        (1, WATCHDOG + b"x" * 100_000, None, ""),  # long before the end
    ],
)
def test_on_a_mac(code: int, output: bytes, kind: str | None, words: str) -> None:
    found = of_exit(code, output, system="Darwin")
    assert (found.kind if found else None) == kind
    if found:
        assert words in found.words
        assert "SECRET" not in found.words


@pytest.mark.parametrize("output", [WATCHDOG, MALLOC, DRIVER])
def test_a_machine_without_metal_does_not_believe_it(output: bytes) -> None:
    assert of_exit(ABORT, output, system="Linux") is None


@pytest.mark.parametrize(
    ("output", "failure"), [(WATCHDOG, Failure.HOST), (MALLOC, Failure.REFUSED_MEMORY), (b"no\n", Failure.CRASH)]
)
def test_the_watchdog_is_the_hosts(output: bytes, failure: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    outcome = JobOutcome("exited", ABORT, 12.0, b"API_KEY=secret\n" + output, False)
    found = ended(outcome, Phase.TRAINING).finding
    assert found.failure is failure
    assert "secret" not in found.detail


def test_a_footprint_over_the_cap_is_told_from_other_caps() -> None:
    killed = [JobOutcome(kind, -1, 5.0, b"", False) for kind in ("killed_memory", "killed_scratch")]
    found = [ended(outcome, Phase.TRAINING).finding.failure for outcome in killed]
    assert found == [Failure.OUT_OF_MEMORY, Failure.OVER_RESOURCES]


def test_nothing_that_the_code_wrote_is_in_what_is_published() -> None:
    outcome = JobOutcome("exited", 1, 5.0, b"ANTHROPIC_API_KEY=sk-123\n", False)
    found = ended(outcome, Phase.TRAINING).finding
    assert found.detail == "exit status 1"
    assert found.said == "ANTHROPIC_API_KEY=sk-123"  # for this machine's own screen
