"""Chromium without a window, by its DevTools protocol on a pipe: https://chromedevtools.github.io/devtools-protocol/."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class Browser:
    """A page that is driven as a reader drives it."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers = orders, answers
        self._buffer, self._last, self._session = b"", 0, ""
        self.complaints: list[str] = []
        """Messages in the console, and exceptions of scripts."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What METHOD answers; raises RuntimeError if it is refused."""
        self._last += 1
        order = {"id": self._last, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._last:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return dict(said["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not (data := os.read(self._answers, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        if said.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(said["params"]))
        return said

    def open(self, page: Path | str, width: int = 1280, height: int = 900) -> None:
        """Load PAGE, a file or an address, in a window of WIDTH × HEIGHT pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """The value of SCRIPT on the page, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own, whose PROFILE is a new folder."""
    assert CHROMIUM
    their_orders, orders = os.pipe()
    answers, their_answers = os.pipe()
    switches = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank")
    # The browser reads file 3 and writes file 4.
    line = f"exec {shlex.join([CHROMIUM, *switches])} 3<&{their_orders} 4>&{their_answers}"
    with subprocess.Popen(["bash", "-c", line], pass_fds=(their_orders, their_answers), stderr=subprocess.DEVNULL) as process:
        os.close(their_orders)
        os.close(their_answers)
        try:
            yield Browser(orders, answers)
        finally:
            process.kill()
            os.close(orders)
            os.close(answers)
