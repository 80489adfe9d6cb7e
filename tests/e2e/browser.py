"""One headless Chromium for a whole test file, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support import require

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 60.0  # that one answer may take
READY = """new Promise((done) => { const look = () => !document.getElementById("data")
  || document.body.hasAttribute("data-ready") ? done() : setTimeout(look, 10); look(); })"""


class Tab:
    """A page. `complaints` are what it said on its console, and what it threw, since it was opened."""

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self._socket, self._session, self._ids = socket, session, itertools.count(1)
        self.complaints: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command's result; AssertionError where it failed."""
        number = next(self._ids)
        asked = {"id": number, "sessionId": self._session, "method": method, "params": parameters}
        self._socket.send(json.dumps(asked))
        while True:
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                result: dict[str, Any] = told["result"]
                return result

    def open(self, url: str) -> None:
        """Go there and wait until it has loaded."""
        self.complaints, self._loaded = [], False
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + SECONDS
        while not self._loaded:
            assert time.monotonic() < deadline, url
            self._next()
        self.run(READY)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def look(self, width: int, scheme: str = "light", media: str = "", height: int = 900) -> None:
        """Show it at a width in CSS pixels, light or dark, on screen or as `print`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is shown, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _next(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._socket.recv(timeout=SECONDS))
        match told.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["params"])[:500])
            case "Log.entryAdded":
                self.complaints.append(str(told["params"]["entry"]["text"])[:500])
        return told


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a Chromium of its own; skipped by name where there is none."""
    require(CHROMIUM is not None, "chromium (apt-get install chromium)")
    assert CHROMIUM is not None
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *quiet]
    command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        address = next(found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line)))
        with connect(address, max_size=None, ping_interval=None) as socket:

            def first(method: str, number: int, **parameters: Any) -> dict[str, Any]:
                socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
                while (told := json.loads(socket.recv(timeout=SECONDS))).get("id") != number:
                    pass
                result: dict[str, Any] = told["result"]
                return result

            target = first("Target.createTarget", -1, url="about:blank")["targetId"]
            yield Tab(socket, first("Target.attachToTarget", -2, targetId=target, flatten=True)["sessionId"])
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
