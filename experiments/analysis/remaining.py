"""What would decide the claims that are still open: seeds, runs and core-hours, of each claim that states its arms.

A claim that too few seeds can test needs three of each arm. Of an inconclusive one the effect and the spread over seeds
are taken to stay as they are: it needs so many seeds that its own test would then decide it, one way or the other.
"""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.claims import INCONCLUSIVE, MIN_SEEDS, NOT_TESTED, Claim, Verdict
from experiments.analysis.results import SCALES, Arm, Results, there
from experiments.analysis.summaries import table

MOST = 100  # seeds; a claim that takes more will not be decided by training
NO_VALUE = "a value of every run: some have none"  # they failed, say


@dataclass(frozen=True, kw_only=True)
class Need:
    """What would decide a claim: `seeds` of each arm in all, so so many more `runs`, by arm; or else `why` nothing."""

    claim: Claim
    seeds: int = 0
    runs: tuple[tuple[str, int], ...] = ()
    why: str = ""


def needed(verdict: Verdict, results: Results) -> Need | None:
    """What would decide a claim; None if nothing is open, or the claim does not state its arms."""
    claim = verdict.claim
    if verdict.verdict not in (INCONCLUSIVE, NOT_TESTED) or not claim.arms:
        return None
    samples = claim.samples(results).to_numpy(dtype=float)
    if SCALES.index(results.scale) < SCALES.index(claim.scale):
        return Need(claim=claim, why=f"runs of `{claim.scale}` scale")
    if not np.isfinite(samples).all():
        return Need(claim=claim, why=NO_VALUE)
    seeds = MIN_SEEDS if verdict.verdict == NOT_TESTED else seeds_to_decide(claim, samples)
    if seeds is None:
        return Need(claim=claim, why=f"more than {MOST} seeds")
    runs = tuple((json.dumps(arm, sort_keys=True), _missing(results, arm, seeds)) for arm in claim.arms)
    return Need(claim=claim, seeds=seeds, runs=runs) if any(n for _, n in runs) else Need(claim=claim, why=NO_VALUE)


def seeds_to_decide(claim: Claim, samples: np.ndarray) -> int | None:
    """The fewest samples, with the mean and the spread of these, that decide a claim; None if it takes over `MOST`."""
    more = range(max(len(samples), MIN_SEEDS), MOST + 1)
    return next((n for n in more if claim.judge(_alike(samples, n)).verdict != INCONCLUSIVE), None)


def _alike(samples: np.ndarray, n: int) -> np.ndarray:
    """n numbers with the mean and the spread of the samples."""
    around = np.resize([1.0, -1.0], n)
    around[n - n % 2 :] = 0.0  # the odd one
    return samples.mean() + around * samples.std(ddof=1) / around.std(ddof=1)


def _missing(results: Results, arm: Arm, seeds: int) -> int:
    """How many of the runs of an arm are not there."""
    rows = there(results.runs, arm)
    return max(0, seeds - rows[rows["status"] == "done"]["seed"].nunique())


def still_open(verdicts: Iterable[Verdict], results: Results) -> list[str]:
    """The section of a report: a line for all claims that the same runs would decide; none where nothing is open."""
    needs = [need for verdict in verdicts if (need := needed(verdict, results))]
    if not needs:
        return []
    alike = defaultdict[tuple[object, ...], list[Need]](list)
    for need in needs:
        alike[need.seeds, need.runs, need.why].append(need)
    done = results.runs[results.runs["status"] == "done"]["seconds"]
    hours = done.min() / 3600 if len(done) else float("nan")
    rows = [_row(group, hours) for group in alike.values()]
    most = dict[str, int]()  # a run serves all claims on its arm
    for name, missing in (pair for need in needs for pair in need.runs):
        most[name] = max(missing, most.get(name, 0))
    runs = sum(most.values())
    cost = (
        f"A run is taken to cost {_hours(hours)} core-hours, as the shortest of those that are there: recorded seconds "
        "count pauses and shared cores."
        if len(done)
        else "No run has ended, so what one costs is not known."
    )
    said = (
        f"{cost} Nothing is tested before {MIN_SEEDS} seeds. For what is inconclusive, effect and spread are taken to "
        "stay as they are, so the seeds given are as likely too few as enough."
    )
    together = f"Together, each run counted once: {runs} runs, {_hours(runs * hours)} core-hours." if runs else ""
    lines = "\n".join(table(["open claims", "what would decide them", "runs missing", "core-hours"], rows))
    return ["## What is still open", textwrap.fill(said, 120), lines, *[together] * bool(together)]


def _row(alike: Sequence[Need], hours: float) -> list[object]:
    first, names = alike[0], ", ".join(f"**{need.claim.id}**" for need in alike)
    runs = sum(missing for _, missing in first.runs)
    if first.why:
        return [names, first.why, "–", "–"]
    return [names, f"{first.seeds} seeds", runs, _hours(runs * hours)]


def _hours(hours: float) -> str:
    return "?" if np.isnan(hours) else f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"
