"""The command line: `python -m syre diagnose CHECKPOINT [--html PAGE] [--json FILE]`."""

import argparse
import contextlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from syre import __version__
from syre.diagnostics.checkpoint import diagnose_state
from syre.diagnostics.diagnosis import Diagnosis
from syre.diagnostics.files import ENDINGS, CheckpointError, load


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(fail(f"{message}; `{self.prog} --help` lists what is allowed"))


def fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def parser() -> Parser:
    top = Parser(prog="python -m syre", description="Is a trained network collapsed, and would syre help?")
    top.add_argument("--version", action="version", version=f"syre {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    about = "ranks, dead rows and equal rows of the weight matrices in a checkpoint; runs no code that is in it"
    diagnose = commands.add_parser("diagnose", help=about, description=about)
    kinds = "a file of torch.save, a .safetensors, the .index.json of several, or a folder that holds one of these"
    diagnose.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help=kinds)
    diagnose.add_argument("--html", metavar="PAGE", type=Path, help="also write a page for a browser")
    diagnose.add_argument("--json", metavar="FILE", type=Path, help="also write all numbers")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after one line on stderr, with nothing written."""
    top = parser()
    asked = top.parse_args(arguments)
    if asked.command is None:
        top.print_help()
        return 0
    outputs = {"--html": asked.html, "--json": asked.json}
    try:
        refuse_bad(outputs, asked.checkpoint)
        diagnosis = named(asked.checkpoint)
        write(diagnosis, asked.html, asked.json)
    except CheckpointError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"cannot write {error.filename or 'the page'}: {error.strerror or error}")
    print(diagnosis)
    return 0


def named(checkpoint: Path) -> Diagnosis:
    """The diagnosis of a checkpoint, whose path stands in every error."""
    state = load(checkpoint)
    try:
        return diagnose_state(state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error


def refuse_bad(outputs: dict[str, Path | None], checkpoint: Path) -> None:
    """Before anything is computed: what cannot be written, or would replace what is read."""
    paths = [path.resolve() for path in outputs.values() if path is not None]
    if len(paths) != len(set(paths)):
        raise CheckpointError(f"--html and --json are both {paths[0]}: name two files")
    for option, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise CheckpointError(f"{option} {path} is a folder: name a file")
        if path.exists() and not path.is_file():
            raise CheckpointError(
                f"{option} {path} is no file but a pipe or a device, which would be replaced: name a file"
            )
        if not path.resolve().parent.is_dir():
            raise CheckpointError(f"{option} {path}: there is no folder {path.resolve().parent}")
        if path.exists() and path.name.endswith(ENDINGS):
            raise CheckpointError(f"{option} {path} would replace a checkpoint: name another file")
        if path.exists() and checkpoint.exists() and path.samefile(checkpoint):
            raise CheckpointError(f"{option} {path} is the checkpoint itself: name another file")


def write(diagnosis: Diagnosis, page: Path | None, numbers: Path | None) -> None:
    """All files or none: each beside its place first, and renamed when all are written; a link stays one."""
    page, numbers = (None if path is None else path.resolve() for path in (page, numbers))
    beside = {
        path: path.with_name(f".{secrets.token_hex(4)}.{path.name}") for path in (page, numbers) if path is not None
    }
    try:
        if page is not None:
            diagnosis.save(beside[page])
        if numbers is not None:
            beside[numbers].write_text(json.dumps(diagnosis, indent=1, allow_nan=False) + "\n")
        for temporary in beside.values():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # some file systems report a full disk only here
        for path, temporary in beside.items():
            temporary.replace(path)
    finally:
        for temporary in beside.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
