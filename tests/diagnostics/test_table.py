"""The printed table of a diagnosis: short, plain, aligned, and honest on what it leaves out."""

import json
import re

import hand_made
import pytest

from syre.diagnostics import words
from syre.diagnostics.table import plain, table

MADE = ("collapsed_mlp", "healthy_transformer", "nothing_known", "evil", "large")


@pytest.fixture(scope="module")
def tables():
    return {name: table(getattr(hand_made, name)()) for name in MADE}


def section(text, title):
    """The lines of a section, its header first."""
    (found,) = (block.splitlines() for block in text.split("\n\n") if block.startswith(title))
    return found


def test_print_shows_it(capsys, tables):
    print(hand_made.collapsed_mlp())
    assert capsys.readouterr().out == tables["collapsed_mlp"] + "\n"


@pytest.mark.parametrize("name", MADE)
def test_it_is_plain_ascii_of_at_most_a_hundred_columns(tables, name):
    text = tables[name]
    assert re.search(r"[^\n -~]", text) is None  # no colour codes either
    assert max(map(len, text.splitlines())) <= 100
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    assert len(text.splitlines()) < 75


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("collapsed_mlp", "COLLAPSED, AND WEIGHT DECAY DOES IT (score 0.81, collapsed from 0.2)"),
        ("healthy_transformer", "NOT COLLAPSED (score 0, collapsed from 0.2)"),
        ("nothing_known", "IT CANNOT BE TOLD WHETHER THIS MODEL IS COLLAPSED"),
    ],
)
def test_the_verdict_comes_first(tables, name, first):
    assert tables[name].splitlines()[0] == first


def test_then_comes_why_how_sure_and_what_to_do(tables):
    lines = tables["collapsed_mlp"].splitlines()
    assert lines[1] == "  - 52 of the 64 units of layers.0 are twins or dead; a random network has none."
    assert lines[3].startswith("  How sure: Of 120 networks")
    advice = "\n".join(lines[lines.index("What to do") :])
    assert advice.index("  1. Attach syre") < advice.index("  2. Or take the weight decay away.")
    assert "     Weight decay is the stronger pull on what tells the units of layers.0 apart." in advice
    assert "score" not in tables["nothing_known"]  # a number would look like a verdict


def test_of_long_advice_the_first_entries_are_shown():
    diagnosis = hand_made.collapsed_mlp()
    diagnosis["advice"] = [{"do": f"Do {place}."} for place in range(9)]
    text = table(diagnosis)
    assert "  4. Do 3.\n  and 5 more\n" in text
    assert "Do 4." not in text


def test_the_rows_hold_the_numbers(tables):
    text = tables["collapsed_mlp"]
    assert section(text, "Sets of units")[1].split() == [
        "layers.0",
        "units",
        "64",
        "49",
        "0",
        "3",
        "81%",
        "0.000844",
        "0.7",
    ]
    assert section(text, "Weights")[1].split() == ["layers.0.weight", "64x784", "9", "8.1", "16%", "0", "0"]
    assert section(text, "Features")[1].split() == ["layers.0", "64", "512", "9", "5.4", "8%", "3", "0"]
    assert section(text, "Decay over gradient")[1].split() == ["layers.0", "0.01", "25", "150", "94%"]
    heads = section(tables["healthy_transformer"], "Heads")
    assert heads[1].split("  ")[-1].strip() == "1.86 to 13.8 of 16"
    assert re.split(r"\s{2,}", heads[1])[:4] == ["blocks.0.attn", "8", "16", "0"]


@pytest.mark.parametrize("name", MADE)
def test_columns_are_aligned(tables, name):
    """Every cell ends where its header ends; names begin at the left."""
    for title in ("Sets of units", "Heads", "Weights", "Features", "Decay over gradient"):
        if f"\n{title} " not in tables[name]:
            continue
        header, *body = section(tables[name], title)
        ends = [found.end() for found in re.finditer(r"\S+( \S+)*", header)][1:]
        for line in body:
            if not line.startswith("  the "):
                assert line[0] != " "
                for end in ends:
                    assert line[end - 1] != " "
                    assert line[end : end + 2].strip() == ""


def test_of_many_rows_the_worst_are_shown_and_the_others_counted(tables):
    diagnosis, text = hand_made.large(), tables["large"]
    sets = sorted(diagnosis["units"], key=words.symmetric_share, reverse=True)[:5]
    rows = section(text, "Sets of units")[1:]
    assert {row.split()[0] for row in rows[:-1]} == {entry["name"] for entry in sets}
    assert rows[-1] == "  the 5 most symmetric of 54; 49 are left out"
    names = [entry["name"] for entry in diagnosis["units"]]
    places = [names.index(row.split()[0]) for row in rows[:-1]]
    assert places == sorted(places)  # in the order of the network
    weights = [words.against_random(entry) for entry in diagnosis["weights"]]
    shown = [row.split()[0] for row in section(text, "Weights")[1:-1]]
    lowest = sorted(range(54), key=weights.__getitem__)[:5]
    assert shown == [diagnosis["weights"][place]["name"] for place in sorted(lowest)]


def test_rows_that_one_part_does_not_need_go_to_the_others():
    diagnosis = hand_made.large() | {"heads": [], "features": None, "training": None}
    diagnosis["units"] = diagnosis["units"][:3]
    text = table(diagnosis)
    assert len(section(text, "Sets of units")) == 4  # all, and nothing is left out
    assert section(text, "Weights")[-1] == "  the 22 lowest in rank of 54; 32 are left out"


def test_a_model_of_three_hundred_parameters_does_not_print_three_hundred_lines():
    assert len(table(hand_made.large(count=300)).splitlines()) < 75


def test_what_was_not_looked_at_is_said(tables):
    assert "Not looked at: training (no optimizer)\n" in tables["healthy_transformer"]
    assert "Not in the forward pass: 2 parameters (pooler.weight, pooler.bias)\n" in tables["healthy_transformer"]
    said = " ".join(tables["nothing_known"].split())
    assert "units and heads (the forward pass asks for arguments that could not be guessed)" in said
    assert "features (no batches), training (no optimizer)" in said
    assert "Not looked at" not in tables["collapsed_mlp"]


def test_what_is_not_known_is_a_dash():
    nothing = {"name": "a", "kind": "units", "count": None, "nearest": {"median": float("nan")}}
    assert section(table({"units": [nothing]}), "Sets of units")[1].split() == ["a", "units", *"-------"]


def test_a_diagnosis_without_some_entry_still_has_a_table():
    many = [table(diagnosis) for diagnosis in hand_made.damaged()]
    assert len(many) > 200
    assert len(set(many)) > 50  # it shows
    assert table({}).startswith("IT CANNOT BE TOLD")


def test_it_is_the_same_from_json(tables):
    for name in ("collapsed_mlp", "healthy_transformer", "nothing_known"):
        assert table(json.loads(json.dumps(getattr(hand_made, name)()))) == tables[name]


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.012345, "0.0123"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (50890, "50,890"),
        (3.0, "3"),
        (0, "0"),
        (1e-9, "1e-09"),
        (None, "-"),
        (float("nan"), "-"),
        (float("inf"), "inf"),
        ("7 units", "-"),
    ],
)
def test_numbers(value, shown):
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0%"), (0.004, "<1%"), (0.5, "50%"), (0.999, ">99%"), (1.0, "100%"), (1.2, "120%"), (None, "-")],
)
def test_shares(share, shown):
    assert words.percent(share) == shown


def test_long_names_keep_their_end():
    name = "transformer.encoder.layers.11.self_attention.output_projection.weight"
    short = words.shorten(name, 32)
    assert len(short) == 32
    assert short.startswith("transfo")
    assert short.endswith("output_projection.weight"[-18:])
    assert words.shorten("layers.0", 32) == "layers.0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("σ ≥ 0.1 × γ", "sigma >= 0.1 x gamma"),
        ("Schicht-ü", r"Schicht-\xfc"),
        ("a\nb\x1b[31m", r"a\nb\x1b[31m"),
        ("\ud800", r"\ud800"),
    ],
)
def test_other_letters_are_spelt_or_escaped(text, shown):
    assert plain(text) == shown
