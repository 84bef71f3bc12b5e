"""A headless Chromium that is told what to do, over a pipe: pages are opened, clicked in and looked at.

What it speaks is the Chrome DevTools Protocol, a message of JSON each, ended by a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

OPTIONS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"),
    "--remote-debugging-pipe",
)
PATIENCE = 120  # seconds, for any answer

Message = dict[str, Any]


class Browser:
    """A browser with a home of its own; close it, or use it in a `with`."""

    def __init__(self, program: str, home: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        # the browser wants them at 3 and 4, where either may be: both move out of the way first
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1])]
        for fd in (ours[0], theirs[1]):
            os.close(fd)
        self._write, self._read, self._rest, self._last = ours[1], theirs[0], b"", 0
        self.events: list[Message] = []
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec 3<&{given[0]} 4>&{given[1]}; exec "$@"', "bash"),
                *(program, *OPTIONS, f"--user-data-dir={home / 'profile'}", "about:blank"),
            ],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(home))},
        )
        for fd in given:
            os.close(fd)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        os.close(self._write)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)

    def call(self, method: str, session: str | None = None, **params: Any) -> Message:
        """Ask for something, and wait for the answer. Raises: RuntimeError when it is refused."""
        self._last += 1
        asked = {"id": self._last, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(asked).encode() + b"\0")
        while True:
            message = self._next(PATIENCE)
            if message is None:
                raise RuntimeError(f"{method}: no answer")
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]

    def wait(self, session: str, event: str, since: int) -> None:
        """Wait until something has happened since there were `since` events. Raises: RuntimeError when it does not."""
        while not any(e["method"] == event and e.get("sessionId") == session for e in self.events[since:]):
            if self._next(PATIENCE) is None:
                raise RuntimeError(f"no {event}")

    def settle(self, seconds: float) -> None:
        """Hear what it says for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._next(left)

    def _next(self, seconds: float) -> Message | None:
        """Its next message; None if there is none in that time."""
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError("the browser has ended")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def page(self, width: int = 1280, height: int = 900, dark: bool = False) -> "Page":
        """A new page on a screen of that size."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, target, session, width, height, dark)


class Page:
    """A page of the browser."""

    def __init__(self, browser: Browser, target: str, session: str, width: int, height: int, dark: bool) -> None:
        self.browser, self.target, self.session, self.since = browser, target, session, len(browser.events)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def call(self, method: str, **params: Any) -> Message:
        return self.browser.call(method, self.session, **params)

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded; what was said of earlier pages is forgotten."""
        self.since = before = len(self.browser.events)
        self.call("Page.navigate", url="about:blank")
        self.browser.wait(self.session, "Page.loadEventFired", before)
        self.since = before = len(self.browser.events)
        self.call("Page.navigate", url=url)
        self.browser.wait(self.session, "Page.loadEventFired", before)
        self.browser.settle(0.3)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or what it promises. Raises: RuntimeError with what it throws."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if thrown := done.get("exceptionDetails"):
            raise RuntimeError(thrown.get("exception", {}).get("description", thrown["text"]))
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true. Raises: RuntimeError when it does not become so."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise RuntimeError(f"never: {expression}")
            self.browser.settle(0.1)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that is such a one."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.evaluate(
            f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])({found}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        self.browser.settle(0.2)

    def type(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):  # some fields hear keys, not what is inserted
            self.call("Input.dispatchKeyEvent", type=kind, key="End", code="End")
        self.browser.settle(0.2)

    def choose(self, selector: str, value: str) -> None:
        """Take an option of a select. Raises: RuntimeError if it has no such option."""
        self.evaluate(
            f"""((one, value) => {{
              if (![...one.options].some(option => option.value === value)) throw Error('no option ' + value);
              one.value = value; one.dispatchEvent(new Event('input', {{bubbles: true}}));
            }})(document.querySelector({json.dumps(selector)}), {json.dumps(value)})"""
        )
        self.browser.settle(0.3)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))

    def _clip(self, whole: bool) -> Message:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)

    def said(self) -> list[str]:
        """The errors and warnings since it was opened."""
        found = []
        for event in self._own():
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        return found

    def asked(self) -> list[str]:
        """The addresses that were asked for since it was opened, its own among them."""
        return [e["params"]["request"]["url"] for e in self._own() if e["method"] == "Network.requestWillBeSent"]

    def _own(self) -> list[Message]:
        return [event for event in self.browser.events[self.since :] if event.get("sessionId") == self.session]
