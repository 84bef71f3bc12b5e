"""Fetch the image data sets: `make data`, or `make data DATA=mnist,cifar10`; a second call does nothing.

The archives, their addresses (every mirror) and their checksums are torchvision's. An archive arrives in a `.part`
file, which an interrupted download leaves and the next one continues (HTTP Range), and takes its name only once its
md5 is right.
"""

import argparse
import contextlib
import fcntl
import http.client
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from syre.data.files import SETS, Archive, DataError, archives, data_root, md5_of

ATTEMPTS = 4  # per mirror
BACKOFF = 1.0  # seconds before the second attempt; doubles
TIMEOUT = 30.0  # seconds without a byte


class Truncated(OSError):
    """The connection closed before the announced end."""


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is asked for and missing; 0 if all of it is there afterwards, 1 if not, 2 for a wrong name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="?", default="all", help=f"all, or some of {','.join(SETS)}")
    parser.add_argument("--root", help="where to put them (default: $SYRE_DATA, else ~/.cache/syre)")
    options = parser.parse_args(arguments)
    names = list(SETS) if options.names == "all" else options.names.split(",")
    if unknown := [name for name in names if name not in SETS]:
        print(f"unknown data set {unknown[0]!r}: choose from all, {', '.join(SETS)}", file=sys.stderr)
        return 2
    root = data_root(options.root)
    failed = False
    for name in names:
        try:
            with only_one_process(root):
                print(f"{name}: {'fetched to' if provide(name, root) else 'already in'} {root}")
        except (DataError, OSError) as error:
            print(f"{name}: {error}; data=digits runs with nothing to fetch", file=sys.stderr)
            failed = True
        except KeyboardInterrupt:
            print(f"{name}: interrupted; the same command goes on from here", file=sys.stderr)
            return 130
    return int(failed)


@contextlib.contextmanager
def only_one_process(root: Path) -> Iterator[None]:
    """Wait for any other process that is fetching into `root`: two must not write one `.part` file."""
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def provide(name: str, root: Path) -> bool:
    """Bring a data set to `root`, unpacked and checked; False if it was there already."""
    lacking = [archive for archive in archives(name, root) if not archive.unpacked()]
    for archive in lacking:
        if not archive.whole():
            fetch(archive)
        archive.unpack()
    return bool(lacking)


def fetch(archive: Archive) -> None:
    """Download an archive from its first mirror that serves it undamaged.

    Raises: DataError where no mirror does; OSError where the disk is full, or not ours to write.
    """
    archive.path.parent.mkdir(parents=True, exist_ok=True)
    part = archive.path.with_name(archive.path.name + ".part")
    reasons: dict[str, str] = {}
    if part.exists() and md5_of(part) == archive.md5:  # killed when all of it was there
        part.replace(archive.path)
        return
    for url in archive.urls:
        host = urlsplit(url).netloc
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
            try:
                download(url, part)
            except urllib.error.HTTPError as error:
                reasons[host] = f"HTTP {error.code} {error.reason}"
                if error.code == 416:  # the part is longer than the file
                    part.unlink(missing_ok=True)
                elif error.code < 500 and error.code not in (408, 429):
                    break
            except urllib.error.URLError as error:
                reasons[host] = f"no connection ({error.reason})"
                if isinstance(error.reason, socket.gaierror):  # no such host, or no network: waiting does not help
                    break
            except (Truncated, TimeoutError, ConnectionError, http.client.HTTPException) as error:
                reasons[host] = str(error) or type(error).__name__
            else:
                if md5_of(part) == archive.md5:
                    part.replace(archive.path)
                    return
                part.unlink()
                reasons[host] = "damaged (wrong md5)"
    tried = ", ".join(f"{host}: {reason}" for host, reason in reasons.items())
    raise DataError(f"cannot fetch {archive.path.name} ({tried})")


def download(url: str, part: Path) -> None:
    """Append to `part` what it lacks of `url`; write it anew if the server does not support Range.

    Raises: URLError, Truncated, TimeoutError, ConnectionError, HTTPException, worth another try; OSError of the disk.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumes else 0
        total = done + (response.length or 0)
        print(f"  {part.stem}: {'rest of ' if resumes else ''}{total / 1e6:.1f} MB from {urlsplit(url).netloc}")
        with part.open("ab" if resumes else "wb") as file:
            while chunk := response.read(1 << 18):
                file.write(chunk)
                done += len(chunk)
                if sys.stderr.isatty():
                    print(f"  {done / 1e6:.1f} MB", end="\r", file=sys.stderr)
            file.flush()
            os.fsync(file.fileno())
        if done < total:
            raise Truncated(f"the connection closed at byte {done} of {total}")


if __name__ == "__main__":
    sys.exit(main())
