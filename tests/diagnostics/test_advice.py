"""Verdict and advice: each case gets its own, from numbers of the evidence, and the evidence is that of the tables."""

import copy
import json
import re

import pytest
import torch

import syre
from syre.diagnostics import advice
from syre.diagnostics.advice import DEFAULTS, MEANING, SCORES, WAYS, advise, evidence, judge


def units(name="layers.0", count=100, twins=0, sign_twins=0, dead=0, distance=0.6, **more) -> dict:
    symmetric = twins + sign_twins + dead
    distances = [0.0] * symmetric + [distance] * (count - symmetric)
    nearest = {"min": min(distances), "median": sorted(distances)[count // 2], "random": 0.7}
    found = {"name": name, "kind": "units", "count": count, "twins": twins, "sign_twins": sign_twins, "dead": dead}
    return found | {"symmetric": symmetric, "distances": distances, "nearest": nearest} | more


def matrix(name="layers.0.weight", rows=100, columns=100, rank=80.0, rms=0.05, **more) -> dict:
    norm = rms * (rows * columns) ** 0.5
    random = {"rank/effective": 85.0, "rank/stable": 30.0}
    found = {"name": name, "rows": rows, "columns": columns, "rank/effective": rank, "random": random, "norm": norm}
    return found | {"dead_rows": 0} | more


def layer(name="layers.1", width=100, rank=60.0, low=0.1, dead=0, duplicates=0) -> dict:
    full = min(width, 511)
    found = {"name": name, "width": width, "samples": 512, "full": full, "rank/effective": rank}
    return found | {"low": low, "dead": dead, "duplicates": duplicates}


def training(decay=0.1, pull=1.0, push=0.1, inward=0.9, coupled=True, name="layers.0") -> dict:
    broken = {"decay": pull, "gradient": push, "inward": inward}
    return {"decay": decay, "coupled": coupled, "units": [{"name": name, "lambda": decay, "broken": broken}]}


def diagnosis(**entries) -> dict:
    known = {"source": "batches", "inputs": "[8, 1, 28, 28]", "why": None, "unread": []}
    model = {"class": "MLP", "parameters": 400_000, "tensors": 8}
    plain = {"model": model, "structure": known, "units": [units()], "weights": [matrix()], "heads": []}
    return plain | {"features": None, "training": None} | entries


# Nearly all units of one layer are alike, of the other dead.
BROKEN = [units(twins=95), units("layers.1", dead=90)]
COLLAPSED = diagnosis(units=BROKEN)
CASES = {
    "healthy": diagnosis(),
    "healthy, decayed": diagnosis(training=training()),
    "by decay": diagnosis(units=BROKEN, training=training()),
    "no decay": diagnosis(units=BROKEN, training=training(decay=0.0, pull=0.0)),
    "by the gradient": diagnosis(units=BROKEN, training=training(pull=0.1, push=1.0)),
    "by neither": diagnosis(units=BROKEN, training=training(inward=0.3)),
    "optimizer unknown": COLLAPSED,
    "dead": diagnosis(units=[units(dead=90)], training=training(decay=0.0)),
    "not told": diagnosis(units=[], structure={"source": "none", "why": "no code"}),
    "checkpoint": diagnosis(
        units=[],
        weights=[matrix(duplicate_rows=80)],
        structure={"source": "none", "why": "no code"},
    ),
    "diverged": diagnosis(weights=[matrix(not_finite=3) | {"norm": None, "rank/effective": None}]),
    "large": diagnosis(units=BROKEN, model={"class": "LM", "parameters": 10**9, "tensors": 9}, heads=[
        {"name": "attention", "count": 8, "size": 64, "equal": [], "query_key": None, "output_value": None}
    ]),
    "small inputs": diagnosis(units=BROKEN, structure={"source": "batches", "why": None, "rms": 0.01}),
}  # fmt: skip


def do(name: str) -> list[str]:
    return [entry["do"] for entry in advise(CASES[name])]


# ---- scores ----------------------------------------------------------------------------------------------------------

HEALTHY = diagnosis(
    weights=[matrix(duplicate_rows=0)] * 5,
    features=[layer()] * 5,
    heads=[{"name": "a", "count": 4, "equal": [], "query_key": {"rank/effective": [12.0] * 4, "full": 16}}],
)
RUINED = diagnosis(
    units=[units(twins=60, sign_twins=20, dead=10, distance=0.01)],
    weights=[matrix(rank=2.0, rms=1e-4, duplicate_rows=80)] * 5,
    features=[layer(rank=1.2, low=0.95, dead=30, duplicates=60)] * 5,
    heads=[{"name": "a", "count": 4, "equal": [[0, 1, 2]], "query_key": {"rank/effective": [1.0] * 4, "full": 16}}],
)


@pytest.mark.parametrize("name", SCORES)
def test_each_score_tells_a_ruined_network_from_a_healthy_one(name):
    low, high = SCORES[name](HEALTHY), SCORES[name](RUINED)
    assert 0 <= low < 0.5 < high <= 1


@pytest.mark.parametrize("name", SCORES)
def test_no_score_comes_from_nothing(name):
    nothing = diagnosis(units=[], weights=[], heads=[], features=None)
    unknown = diagnosis(
        units=[units(count=2, dead=2)],  # too few to say anything
        weights=[matrix(rank=None) | {"norm": None}, matrix(rows=2)],
        features=[layer(rank=None, low=None, dead=None, duplicates=None)],
        heads=[{"name": "a", "count": 0, "equal": [], "query_key": None}],
    )
    assert SCORES[name](nothing) is None
    assert SCORES[name](unknown) is None


def test_what_is_usual_in_networks_that_are_well_moves_the_worst_of_them_alone():
    usual = diagnosis(
        units=[units(f"block.{k}", dead=70 if k == 0 else 0) for k in range(9)],  # a layer with dead channels
        weights=[matrix(rank=8.0 if k == 0 else 80.0) for k in range(9)],  # a matrix of low rank
        features=[layer(rank=5.0 if k == 0 else 60.0) for k in range(9)],  # features of a few classes
    )
    for worst, robust in (
        ("symmetric", "symmetric/mean"),
        ("symmetric", "symmetric/median"),
        ("symmetric", "twins"),
        ("near/most", "near"),
        ("weights", "weights/quarter"),
        ("weights", "weights/median"),
        ("features", "features/median"),
    ):
        assert SCORES[worst](usual) > 0.5 > SCORES[robust](usual)


def test_features_that_are_constant_are_narrowest():
    constant, one, two = ([layer(rank=rank)] for rank in (0.0, 1.0, 2.0))
    assert [SCORES["narrow"](diagnosis(features=features)) for features in (constant, one, two)] == [1, 1, 0.5]


def test_the_last_layer_is_the_one_that_is_read_last():
    mixed = diagnosis(features=[layer(rank=60.0, low=0.0), layer(rank=2.0, low=0.9)])
    assert SCORES["low"](mixed) == 0.9
    assert SCORES["narrow/last"](mixed) == 0.5
    mixed["features"].reverse()
    assert SCORES["low"](mixed) == 0.0


def test_scores_leave_a_diagnosis_as_it_was():
    given = copy.deepcopy(RUINED)
    for score in SCORES.values():
        score(given)
    assert given == RUINED


def test_every_score_has_a_meaning_and_every_rule_a_score():
    assert [*MEANING] == [*SCORES]
    rules = [rule for rule in (*DEFAULTS.values(), *evidence()["diagnostics"].values()) if rule]
    assert {rule["score"] for rule in rules} <= {*SCORES}
    assert [*DEFAULTS] == [*WAYS]
    assert {*evidence()["diagnostics"]} == {*WAYS}


# ---- verdict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_verdict_and_advice_are_plain_and_of_the_agreed_form(name):
    case = CASES[name]
    verdict, entries = judge(case), advise(case)
    assert json.loads(json.dumps({"verdict": verdict, "advice": entries}, allow_nan=False))["verdict"] == verdict
    assert [*verdict] == ["collapsed", "score", "threshold", "because", "by_decay", "sure"]
    assert (verdict["collapsed"] is None) == (verdict["score"] is None)
    assert verdict["collapsed"] is None or verdict["collapsed"] == (verdict["score"] >= verdict["threshold"])
    sentences = [*verdict["because"], verdict["sure"]]
    assert entries
    for entry in entries:
        assert [*entry] == ["do", "because", "evidence", "sure"]
        sentences += [entry["do"], entry["because"], entry["sure"], *entry["evidence"]]
    for sentence in sentences:
        assert re.fullmatch(r"[A-Z0-9].*[.]", sentence), sentence
        assert not re.search(r"\b(nan|None|inf|True|False)\b|  |%%|\.\.", sentence), sentence


def test_collapses_are_told_and_healthy_networks_are_not_called_collapsed():
    told = {name: judge(case)["collapsed"] for name, case in CASES.items()}
    healthy, unknown = {"healthy", "healthy, decayed"}, {"not told", "diverged"}
    assert {name for name, collapsed in told.items() if collapsed is False} == healthy
    assert {name for name, collapsed in told.items() if collapsed is None} == unknown
    assert {name for name, collapsed in told.items() if collapsed is True} == {*CASES} - healthy - unknown


def test_a_collapse_is_decays_own_where_it_pulls_harder_than_the_gradient():
    found = {name: judge(CASES[name])["by_decay"] for name in CASES}
    assert {name for name, own in found.items() if own is True} == {"by decay"}
    assert {name for name, own in found.items() if own is False} == {"no decay", "by the gradient", "dead"}


def test_the_symmetric_units_decide_who_did_it():
    both = training()
    both["units"].append(training(pull=0.1, push=1.0, name="layers.1")["units"][0])
    assert judge(diagnosis(units=[units(twins=100), units("layers.1", dead=60)], training=both))["by_decay"] is True
    assert judge(diagnosis(units=[units(twins=60), units("layers.1", dead=100)], training=both))["by_decay"] is False


def test_on_a_symmetric_state_itself_nobody_is_to_blame():
    still = training(pull=0.0, push=0.0, inward=None)
    assert judge(diagnosis(units=BROKEN, training=still))["by_decay"] is None


def test_reasons_name_the_numbers():
    (score, kinds, worst, rank) = judge(COLLAPSED)["because"]
    assert "0.93" in score
    assert "185 of 200 units" in kinds
    assert "95 twins, 0 sign-twins, 90 dead" in kinds
    assert "layers.0: 95 of 100" in worst
    assert "layers.0.weight" in rank


@pytest.fixture
def changed(monkeypatch):
    """Evidence that is changed in a copy; what was found in the old one is forgotten."""
    other = copy.deepcopy(evidence())
    advice._harmful.cache_clear()
    monkeypatch.setattr(advice, "evidence", lambda: other)
    yield other
    advice._harmful.cache_clear()


MEASURED = {"score": "features/last", "threshold": 0.7, "collapsed": 41, "hits": 40, "healthy": 57, "false_alarms": 2}


def test_a_measured_rule_replaces_the_one_that_is_not_and_says_how_sure_it_is(changed):
    seen = diagnosis(units=BROKEN, features=[layer()])
    changed["diagnostics"]["with batches"] = None
    assert "not yet measured" in judge(seen)["sure"]
    changed["diagnostics"]["with batches"] = MEASURED
    verdict = judge(seen)
    assert (verdict["collapsed"], verdict["threshold"]) == (False, 0.7)
    assert "40 of 41" in verdict["sure"]
    assert "2 of 57" in verdict["sure"]
    assert judge(diagnosis(features=[layer(rank=5.0)]))["collapsed"] is True
    # what the rule cannot judge, the next way does
    assert judge(diagnosis(units=BROKEN, features=[layer(rank=None)]))["collapsed"] is True
    assert judge(COLLAPSED)["collapsed"] is True


# ---- advice ----------------------------------------------------------------------------------------------------------

LESS, SYRE, SCOPE, ASK = "Use less weight decay", "syre.attach(", "What decays", "Pass the optimizer"


def order(name: str) -> list[str]:
    words = {LESS: "less", "Scale the inputs": "inputs", "Look at": "look", SCOPE: "scope", ASK: "ask"}
    words |= {"Nothing is wrong": "nothing", "Pass the model": "model", "Go back": "back", SYRE: "syre"}
    return [next(short for long, short in words.items() if long in line) for line in do(name)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("healthy", ["nothing"]),
        ("healthy, decayed", ["nothing"]),
        ("by decay", ["less", "syre", "scope"]),
        ("no decay", ["look", "syre"]),
        ("by the gradient", ["look", "syre"]),
        ("by neither", ["less", "syre", "scope"]),
        ("optimizer unknown", ["less", "syre", "ask", "scope"]),
        ("checkpoint", ["less", "syre", "ask", "scope"]),
        ("not told", ["model"]),
        ("diverged", ["back"]),
        ("small inputs", ["inputs", "less", "syre", "ask", "scope"]),
    ],
)
def test_each_case_gets_its_advice_in_its_order(name, expected):
    assert order(name) == expected


def test_what_is_dead_and_what_is_alike_have_causes_of_their_own():
    assert "dead: look for" in advise(CASES["dead"])[0]["because"]
    assert "dead" not in advise(diagnosis(units=[units(twins=90)], training=training(decay=0.0)))[0]["because"]


def test_less_decay_is_less_than_there_is():
    assert "from 0.1 to 0.01" in do("by decay")[0]
    assert "from" not in do("optimizer unknown")[0]


def difference(figure: str, gamma: float, of: str, than: str, source: dict | None = None) -> dict:
    """An entry of the evidence."""
    places = (source or evidence())["places"]
    rows = [row for place in places if place["figure"] == figure for row in place["differences"]]
    (found,) = [row for row in rows if (row["gamma"], row["of"], row["than"]) == (gamma, of, than)]
    return found


def test_less_decay_is_compared_with_syre_by_the_numbers_of_the_evidence(changed):
    entry = difference("fig5", 0.1, "no decay", "syre, best sigma", changed)
    mean, low, high, _ = (100 * value for value in entry["accuracy"])
    words = f"{mean:.1f} [{low:.1f}, {high:.1f}] points of accuracy"

    def sentence() -> str:
        return advise(CASES["by decay"])[0]["evidence"][0]

    assert f"no decay, against syre at the best sigma, gains {words}" in sentence()
    # control: with the labels exchanged it is syre that wins
    entry["accuracy"] = [-entry["accuracy"][0], -entry["accuracy"][2], -entry["accuracy"][1], entry["accuracy"][3]]
    assert f"no decay, against syre at the best sigma, loses {words}" in sentence()


def test_every_setting_in_which_decay_is_harmful_is_named_with_its_model():
    sentences = advise(CASES["by decay"])[0]["evidence"]
    for figure in ("fig5", "fig9", "fig11", "fig12"):
        (number,) = re.findall(r"\d+", figure)
        mine = [sentence for sentence in sentences if sentence.startswith(f"Figure {number} (")]
        assert mine
        assert all(evidence()["models"][figure]["words"] in sentence for sentence in mine)


def test_what_is_recommended_is_what_the_map_over_sigma_shows():
    def undone(sigma: float, unit: str) -> list[float]:
        return [row["undone"][0] for row in advice._undone(sigma, unit)]

    assert len(undone(advice.SIGMA, "relative")) >= 4
    assert min(undone(advice.SIGMA, "relative")) > 0.8
    assert min(undone(advice.ABSOLUTE, "absolute")) > 0.8
    assert 0.3 < min(undone(advice.CAREFUL, "relative")) < min(undone(advice.SIGMA, "relative"))
    assert max(undone(advice.PAPERS, "relative")) < 0.3
    costs = {s: max(row["cost"][0] for row in advice._over_sigma(s, "relative", "cost")) for s in (0.3, 1, 3)}
    assert costs[advice.CAREFUL] < costs[advice.SIGMA] < costs[3] / 5


def line(entry: dict) -> str:
    (found,) = re.findall(r"`(.*)`", entry["do"])
    return found


@pytest.mark.parametrize(("name", "decay"), [("by decay", 0.1), ("no decay", 0.0), ("by the gradient", 0.1)])
def test_the_line_to_paste_runs_and_attaches(name, decay):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)
    entry = next(entry for entry in advise(CASES[name]) if SYRE in entry["do"])
    handle = eval(line(entry), {"syre": syre, "optimizer": optimizer, "model": model})
    assert handle.anchors
    assert optimizer.param_groups[0]["weight_decay"] > 0


def test_advice_says_where_the_model_is_unlike_those_measured():
    largest = max(entry["parameters"] for entry in evidence()["models"].values())
    far = [entry["sure"] for entry in advise(CASES["large"]) if entry["evidence"]]
    assert far
    for sentence in far:
        assert (
            f"Measured only up to {largest:,} parameters, and yours has {10**9 / largest:,.0f} times as many"
            in sentence
        )
        assert "no language model" in sentence
    near = " ".join(entry["sure"] for entry in advise(COLLAPSED))
    assert "Measured only" not in near
    assert "attention" not in near
    decoupled = advise(diagnosis(units=BROKEN, training=training(coupled=False)))[0]["sure"]
    assert "decoupled" in decoupled
    assert "decoupled" not in advise(CASES["by decay"])[0]["sure"]
    assert "without a forward pass" in advise(CASES["checkpoint"])[0]["sure"]


def test_a_verdict_that_is_there_is_not_judged_anew():
    verdict = judge(COLLAPSED)
    assert advise(diagnosis(verdict=verdict))[0]["do"].startswith(LESS)


def test_what_rests_on_evidence_says_on_how_many_seeds():
    for name in CASES:
        for entry in advise(CASES[name]):
            numbers = [sentence for sentence in entry["evidence"] if "[" in sentence]
            assert not numbers or re.search(r"\d seeds each", " ".join([entry["sure"], *numbers]))


# ---- the evidence ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_evidence_is_that_of_the_tables(tmp_path):
    made = pytest.importorskip("scripts.evidence", reason="of the checkout")
    assert made.main(["--results", str(made.ROOT / "results"), "--out", str(tmp_path / "evidence.json")]) == 0
    assert (tmp_path / "evidence.json").read_bytes() == made.OUT.read_bytes(), "run `make evidence`"


def test_the_evidence_is_that_of_the_map_over_sigma_and_of_the_claims():
    """Two of its entries, made by the code that makes the figures."""
    figures, analysis = "experiments.figures", "experiments.analysis"
    names = (f"{figures}.fig5", f"{figures}.sigma_map", f"{analysis}.results", f"{analysis}.stats", "scripts.evidence")
    fig5, sigma_map, results, stats, made = (pytest.importorskip(name, reason="of the checkout") for name in names)
    table = results.load(made.ROOT / "results", "fig5")
    claim = next(claim for claim in fig5.CLAIMS if claim.id == "accuracy-no-decay")
    mean, low, high, n = difference("fig5", 0.1, "no decay", "syre, best sigma")["accuracy"]
    expected = stats.t_interval(-claim.samples(table))
    assert (mean, low, high, n) == pytest.approx(expected, rel=1e-3)
    together = table.__class__(
        experiment="fig5", scale=table.scale, runs=table.runs.assign(experiment="fig5"), metrics=table.metrics
    )
    rows = sigma_map.effects(together, "fig5")
    expected = stats.t_interval(rows[rows["regularizer.sigma"] == 1]["value"])
    (mine,) = [r for r in evidence()["sigma"] if (r["figure"], r["unit"], r["sigma"]) == ("fig5", "relative", 1)]
    assert mine["undone"] == pytest.approx(expected, rel=1e-3)


def test_tables_that_are_missing_are_one_line_and_nothing_is_written(tmp_path, capsys):
    made, out = pytest.importorskip("scripts.evidence", reason="of the checkout"), tmp_path / "evidence.json"
    assert made.main(["--results", str(tmp_path), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no results for fig1 in ")
    assert not out.exists()
