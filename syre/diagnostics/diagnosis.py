"""What `syre.diagnose` returns: a plain dict of numbers and words, which prints as a table and writes a page.

Everything in it is a dict, list, str, int, float, bool or None, so that `json.dumps` takes it. Its entries:

`model`: {"class": str, "parameters": int, "tensors": int}.

`structure`: how the network was read.
    "source": "batches", "guessed inputs", "none"; "inputs": str, their shapes in words; "why": str or None, why nothing
    is known of what reads which unit; "unread": [names of parameters that the forward pass did not touch].

`units`: a list, one entry for each set of interchangeable units that the forward pass has (the hidden units of a layer,
    the channels of a residual stream, the heads of an attention):
    "name": str; "kind": "units" or "heads"; "count": int, how many; "entries": int, numbers that belong to each;
    "symmetry": list of "permutation", "sign", "scale": by what two of them may differ and still be the same unit;
    "made_by", "read_by": lists of names of parameters, with the axis: "layers.0.weight[0]";
    "twins": int, units that have another one equal to them but for a permutation; "sign_twins": the same, with the
    sign of one changed; "duplicates": units whose incoming weights alone equal those of another one; "dead": units
    whose incoming or outgoing weights are 0; "symmetric": int, twins, sign-twins or dead;
    "groups": the largest groups of twins, at most 8, each a list of at most 32 indices;
    "distances": [count] floats, from each unit to the nearest state at which it is the twin of another one or dead:
    |u - Ru| / 2 over the length that two of its units have, in [0, about 1]: 0 is a symmetric state;
    "nearest": {"min", "median", "random"}: of `distances`, and the median of a network with independent Gaussian
    entries of the same shape.

`weights`: a list, one entry for each parameter of two axes or more, as a matrix [rows, columns]:
    "name", "shape": [int], "rows", "columns"; "rank" (numerical), "rank/effective", "rank/stable": float;
    "random": {"rank/effective", "rank/stable"}: of a Gaussian matrix of that shape; "dead_rows", "dead_columns": int;
    "singular": at most 64 singular values over the largest, evenly spaced in their order; "norm": Frobenius.

`heads`: a list, one entry for each attention: "name", "count", "size"; "equal": groups of equal heads, lists of
    indices; "query_key", "output_value": None or {"rank/effective": [count], "rank": [count], "full": int}.

`features`: None without batches; else a list, one entry for each layer: "name", "width", "samples" (rows: images, or
    images times positions); "rank", "rank/effective", "rank/stable", "full" (the largest rank possible): float;
    "dead": int, "duplicates": int (units whose features equal those of another one, up to sign and scale);
    "low": float, share of the covariance's eigenvalues below 1e-3 of the largest; "eigenvalues": at most 64.

`training`: None without an optimizer; else {"decay": largest lambda, "coupled": bool, "batches": int, "units": [...]},
    one entry for each set of `units`: "name", "lambda"; on the symmetric part (what a unit has in common with its
    nearest twin) and on the broken part (the rest): "symmetric", "broken": {"decay": rms of lambda w, "gradient": rms,
    "inward": share in [0, 1] of the units that the sum of both moves towards the symmetric state}.

`verdict`: {"collapsed": True, False or None (it cannot be told), "score": float in [0, 1], "threshold": float,
    "because": [sentences], "by_decay": True, False or None, "sure": sentence on hits and false alarms}.

`advice`: a list of {"do": sentence, "because": sentence, "evidence": [sentences], "sure": sentence}; the first is the
    one to try first. "Nothing is wrong" is an entry like others.
"""

from pathlib import Path
from typing import Any


class Diagnosis(dict[str, Any]):
    """A plain dict, whose entries the module's docstring lists; `print` shows a table, `save` writes a page."""

    def __str__(self) -> str:
        from syre.diagnostics.table import table

        return table(self)

    def save(self, path: str | Path) -> Path:
        """Write a self-contained HTML page (no network, no script from elsewhere) and return its path."""
        from syre.diagnostics.page import write

        return write(self, path)
