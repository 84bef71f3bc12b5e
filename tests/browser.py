"""Pages opened in a real headless Chromium: what it says, what it asks for, and how large things are on its screen."""

import html
import json
import os
import re
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/browser.sh"

# Runs in a page that has the pages in frames as wide as the screen to try: no window is as narrow as a phone.
MEASURE = """
const inside = (box, frame, slack) => box.left >= frame.left - slack && box.right <= frame.right + slack
  && box.top >= frame.top - slack && box.bottom <= frame.bottom + slack;
const look = (page, view) => ({
  width: view.innerWidth,
  scrolls: page.documentElement.scrollWidth,
  wider: [...page.body.querySelectorAll('*')].filter(one => !one.closest('.scroll') && !one.closest('svg')
    && one.getBoundingClientRect().right > view.innerWidth + 1).map(one => one.outerHTML.slice(0, 200)),
  svgs: [...page.querySelectorAll('svg')].filter(one => one.getBoundingClientRect().width).map(one => {
    const box = one.getBoundingClientRect();
    return {title: one.getAttribute('aria-label'), width: box.width, height: box.height,
            scale: box.width / one.viewBox.baseVal.width,
            cut: [...one.querySelectorAll('text')].filter(text => !inside(text.getBoundingClientRect(), box, 1.5))
                 .map(text => text.textContent)};
  }),
});
onload = () => {
  const found = {};
  for (const frame of document.querySelectorAll('iframe')) {
    const page = frame.contentDocument, view = frame.contentWindow;
    const closed = look(page, view);
    page.querySelectorAll('details').forEach(one => one.open = true);
    found[frame.id] = {
      closed, open: look(page, view), title: page.title, scripts: page.scripts.length,
      pictures: page.querySelectorAll('svg').length,
      sections: [...page.querySelectorAll('[id]')].map(one => one.id),
      background: view.getComputedStyle(page.body).backgroundColor,
      asked: view.performance.getEntriesByType('resource').map(one => one.name),
    };
  }
  document.body.dataset.found = JSON.stringify(found);
};
"""


class _Body(HTMLParser):
    found: str = ""

    def handle_starttag(self, tag, attrs):
        if tag == "body":
            self.found = dict(attrs).get("data-found", "")


def found() -> str:
    """The browser of this machine; without one the test is skipped, or fails where SYRE_BROWSER=1 asks for it."""
    found = subprocess.run(["bash", SCRIPT, "path"], capture_output=True, text=True)
    if found.returncode != 0:
        (pytest.fail if os.environ.get("SYRE_BROWSER") == "1" else pytest.skip)(found.stderr.strip())
    return found.stdout.strip()


class Chromium:
    """A browser with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.program, self.home = found(), home

    def open(self, path: Path, *options: str) -> SimpleNamespace:
        """What it logs to its console, and the document as it stands in the end."""
        quiet = ("--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--disable-dev-shm-usage")
        ask = ("--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom", path.as_uri())
        profile = f"--user-data-dir={self.home / 'profile'}"
        done = subprocess.run(
            [self.program, "--headless", "--no-sandbox", "--disable-gpu", profile, *quiet, *options, *ask],
            capture_output=True,
            env={**os.environ, **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(self.home))},
            timeout=300,
        )
        log = done.stderr.decode(errors="replace")
        assert done.returncode == 0, log
        said = [line for line in log.splitlines() if re.search(r"\bCONSOLE\b", line)]
        return SimpleNamespace(dom=done.stdout.decode(errors="replace"), said=said)


def measured(chromium: Chromium, pages: Mapping[tuple[str, int], str], *options: str) -> SimpleNamespace:
    """Pages by name and width of the screen, as a reader has them: what is found in each, what the console says."""
    frame = '<iframe id="{}-{}" style="border:0;width:{}px;height:900px" srcdoc="{}"></iframe>'
    frames = [frame.format(name, width, width, html.escape(page)) for (name, width), page in pages.items()]
    text = f"<!doctype html><meta charset=utf-8><script>{MEASURE}</script><body>{''.join(frames)}"
    wrapper = chromium.home / "wrapper.html"
    wrapper.write_bytes(text.encode("utf-8", "replace"))
    opened, body = chromium.open(wrapper, *options), _Body()
    body.feed(opened.dom)
    return SimpleNamespace(found=json.loads(body.found), said=opened.said)
