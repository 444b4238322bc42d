"""Headless Chromium, controlled by its DevTools protocol over a pipe."""

import base64
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

# All text and elements of a page, including web components, which selectors of the page do not reach.
WALK = """
(function () {
  const texts = [], elements = [];
  (function walk(node) {
    if (node.nodeType === Node.TEXT_NODE && node.data.trim()) texts.push(node.data.trim());
    if (node.nodeType === Node.ELEMENT_NODE) {
      if (["STYLE", "SCRIPT", "TEMPLATE"].includes(node.tagName)) return;
      elements.push(node);
      if (node.shadowRoot) walk(node.shadowRoot);
    }
    for (const child of node.childNodes) walk(child);
  })(document);
  return %s;
})()
"""


def chromium() -> str | None:
    """Return the path of the browser; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """Page of a browser that closes with it.

    Args:
        profile: folder for the files of the browser.
        size: of the window, in pixels.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 900)) -> None:
        program = chromium()
        assert program is not None
        (theirs, self._orders), (self._answers, their_answers) = os.pipe(), os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",  # the sandbox needs privileges that containers rarely have
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        command = f"exec {shlex.join([program, *options])} 3<&{theirs} 4>&{their_answers}"
        self._process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=[theirs, their_answers], stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(their_answers)
        self._unread, self._number, self._session = b"", 0, None
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            while b"\0" not in self._unread:
                more = os.read(self._answers, 1 << 16)
                assert more, "the browser has ended"
                self._unread += more
            message, _, self._unread = self._unread.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address: str) -> None:
        self._ask("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """Return the value of a script."""
        return self._ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the viewport in pixels."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Set the preferred colour scheme: light or dark."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def text(self) -> str:
        """Return all visible text, one line per element."""
        return str(self.evaluate(WALK % 'texts.join("\\n")'))

    def count(self, selector: str) -> int:
        """Return the number of matching elements."""
        return int(
            self.evaluate(WALK % f"elements.filter((e) => e.matches({json.dumps(selector)})).length") or 0
        )

    def screenshot(self) -> bytes:
        """Return a PNG of the viewport."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._orders)
        os.close(self._answers)
