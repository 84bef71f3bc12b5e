"""Accessibility and speed of the built site: axe-core in our own headless browser, and Lighthouse where there is one.

    npm install --prefix /tmp/audit axe-core lighthouse
    .venv-site/bin/python -m scripts.site.audit /tmp/audit

It says what axe finds on some pages, on a wide and a narrow screen, light and dark, and what Lighthouse gives, the
median of three, to pages from a server of this machine that compresses as any host does. Exit status 1 if axe finds
anything, or a score is below 95; the scores for speed are those of the machine as it is: let nothing else run on it.
"""

import argparse
import functools
import gzip
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from scripts.site.devtools import Browser

ROOT = Path(__file__).parents[2]
PAGES = (
    "index.html",
    "statements.html",
    "figures/fig5.html",
    "explorer.html",
    "explorer.html#view=runs&figure=fig5",
    "api/index.html",
)
JUDGED = ("index.html", "figures/fig5.html", "explorer.html")
LEAST = 95


def violations(program: str, axe: str, site: Path) -> int:
    """Print what axe finds, and count it."""
    found = 0
    with tempfile.TemporaryDirectory() as home, Browser(program, Path(home)) as browser:
        for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
            page = browser.page(width, 900, dark)
            for path in PAGES:
                name, _, place = path.partition("#")
                page.open((site / name).as_uri() + (f"#{place}" if place else ""))
                browser.settle(0.5)
                page.evaluate(axe)
                result = json.loads(page.evaluate("axe.run().then(JSON.stringify)"))
                for each in result["violations"]:
                    found += 1
                    print(
                        f"{path} {width} {'dark' if dark else 'light'}: {each['id']} ({each['impact']}), {each['help']}"
                    )
                    for node in each["nodes"][:3]:
                        print(f"    {node['html'][:160]}\n      {' '.join(node['failureSummary'].split())[:240]}")
            page.close()
    return found


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, compressed as any host of static pages serves them."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in (".html", ".css", ".js", ".json"):
            return super().do_GET()
        content = gzip.compress(path.read_bytes()) if path.is_file() else b""
        self.send_response(200 if content else 404)
        headers = {
            "Content-Type": self.guess_type(str(path)),
            "Content-Encoding": "gzip",
            "Content-Length": len(content),
        }
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def scores(program: str, lighthouse: Path, site: Path) -> list[float]:
    """Print the scores that Lighthouse gives, and return them, of 100."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Server, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found: list[float] = []
    address, environment = f"http://127.0.0.1:{server.server_address[1]}", {**os.environ, "CHROME_PATH": program}
    for path in JUDGED:
        for preset in ("mobile", "desktop"):
            options = ["--output=json", "--quiet", "--only-categories=performance,accessibility"]
            options += ["--chrome-flags=--headless=new --no-sandbox", *["--preset=desktop"] * (preset == "desktop")]
            tries = []
            for _ in range(3):
                done = subprocess.run(
                    [str(lighthouse), f"{address}/{path}", *options], capture_output=True, text=True, env=environment
                )
                if done.returncode != 0:
                    sys.exit(f"lighthouse: {done.stderr.strip()}")
                tries.append(json.loads(done.stdout))
            of = {
                name: 100 * statistics.median(each["categories"][name]["score"] for each in tries)
                for name in ("performance", "accessibility")
            }
            found += of.values()
            print(f"{path} {preset}: " + ", ".join(f"{name} {score:.0f}" for name, score in of.items()))
            for audit in ("first-contentful-paint", "largest-contentful-paint", "total-blocking-time"):
                print(f"    {audit}: {', '.join(each['audits'][audit]['displayValue'] for each in tries)}")
            for each in tries[-1]["audits"].values():
                if each.get("score") == 0 and each["scoreDisplayMode"] == "binary":
                    print(f"    fails: {each['title']}")
    server.shutdown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", type=Path, help="the folder in which npm has installed axe-core, and lighthouse")
    parser.add_argument("--site", type=Path, default=ROOT / "site")
    words = parser.parse_args()
    modules = words.tools / "node_modules"
    for path in (modules / "axe-core/axe.min.js", words.site / "index.html"):
        if not path.is_file():
            parser.error(f"{path} is not there")
    program = subprocess.run(["bash", ROOT / "scripts/browser.sh", "path"], capture_output=True, text=True)
    if program.returncode != 0:
        sys.exit(program.stderr.strip())
    browser, site = program.stdout.strip(), words.site.resolve()
    failed = violations(browser, (modules / "axe-core/axe.min.js").read_text(encoding="utf-8"), site)
    print(f"axe: {failed} violations")
    if (lighthouse := modules / ".bin/lighthouse").exists():
        failed += sum(score < LEAST for score in scores(browser, lighthouse, site))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
