"""The command line of `make plots`: from the committed tables to figures and verdicts, without torch.

python -m experiments.report                every figure that has results
python -m experiments.report fig4 fig5      some of them
"""

import argparse
import sys
from argparse import RawDescriptionHelpFormatter as Raw
from collections.abc import Sequence
from pathlib import Path

from experiments.analysis import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, draw and report; 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__, formatter_class=Raw)
    parser.add_argument("figures", nargs="*", help="fig4 ...; without names, every figure that has results")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--sources", action="store_true", help="only say which experiments they are drawn from")
    options = parser.parse_args(arguments)
    try:
        if options.sources:
            from experiments.analysis.pages import module_of, sources

            print(*dict.fromkeys(source for name in options.figures for source in sources(module_of(name), name)))
        else:
            report.show(options.figures, options.results)
    except RuntimeError as error:
        from experiments.analysis.results import ResultsError  # and pandas with it

        if not isinstance(error, ResultsError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
