"""The page of a diagnosis: complete, self-contained, readable on a phone and in the dark, and safe from any name."""

import json
import math
import os
import re
from html.parser import HTMLParser

import browser
import hand_made
import numpy as np
import pytest
from browser import Chromium, measured

from syre.diagnostics import charts, page, sections
from syre.diagnostics.charts import Panel, Series

MADE = ("collapsed_mlp", "healthy_transformer", "nothing_known", "evil", "large")
SECTIONS = ["verdict", "advice", "overview", "units", "heads", "weights", "features", "training", "reading", "words"]
VOID = {"meta", "link", "img", "br", "rect", "line", "path", "polyline"}


class Parsed(HTMLParser):
    """The elements of a page, and whether each is closed where it ought to be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.wrong = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or not self.get_starttag_text().endswith("/>"):
            self.open += [] if tag in {"meta", "link"} else [tag]

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def pages():
    return {name: page.page(getattr(hand_made, name)()) for name in MADE}


# ---- the file --------------------------------------------------------------------------------------------------------


def test_save_writes_the_page_and_returns_its_path(tmp_path, pages):
    path = hand_made.collapsed_mlp().save(str(tmp_path / "page.html"))
    assert path == tmp_path / "page.html"
    assert path.read_text() == pages["collapsed_mlp"]
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_said_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no folder {tmp_path / 'none'}")) as error:
        hand_made.nothing_known().save(tmp_path / "none/page.html")
    assert "\n" not in str(error.value)
    with pytest.raises(IsADirectoryError, match=f"{re.escape(str(tmp_path))} is a folder"):
        hand_made.nothing_known().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_older_page_stays_until_the_new_one_is_complete(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "a temporary file")

    path = tmp_path / "page.html"
    path.write_text("older")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=r"No space left on device: .*page\.html"):
        hand_made.nothing_known().save(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.html", "older")]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    hand_made.nothing_known().save(tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="is no file but a pipe or a device"):
        hand_made.nothing_known().save(tmp_path / "pipe")
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_an_interrupted_page_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hand_made.nothing_known().save(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "limit"), [("large", 1.5e6), ("collapsed_mlp", 1e5)])
def test_its_size_stays_small(pages, name, limit):
    assert len(pages[name].encode("utf-8", "replace")) < limit


def test_a_model_of_thousands_of_layers_gets_a_page_that_says_what_it_leaves_out():
    text = page.page(hand_made.large(count=2400, width=8))
    assert len(text) < 4e6
    assert "2,280 more sets of units are not drawn." in text
    assert "1,400 more rows left out." in text
    assert "Each place stands for 6 layers in a row" in text


# ---- its text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_it_is_well_formed_and_asks_for_nothing(pages, name):
    parsed = Parsed(pages[name])
    assert (parsed.open, parsed.wrong) == ([], [])
    assert parsed.all("script") == parsed.all("img") == []
    links = [
        values[key] for _, values in parsed.elements for key in ("src", "href", "srcset", "action") if key in values
    ]
    assert links == ["data:,"]
    assert [key for _, values in parsed.elements for key in values if key.startswith("on")] == []
    assert "url(" not in pages[name]
    assert "@import" not in pages[name]
    assert [values["id"] for _, values in parsed.elements if "id" in values] == SECTIONS


def test_the_parser_of_these_tests_sees_what_is_wrong():
    """The control."""
    parsed = Parsed("<section><p>a</section><script src=x></script>")
    assert parsed.wrong == ["section"]
    assert parsed.all("script") == [{"src": "x"}]


@pytest.mark.parametrize("name", MADE)
def test_every_picture_has_a_size_a_title_a_description_and_a_sentence(pages, name):
    svgs = re.findall(r"<svg .*?</svg>", pages[name], re.DOTALL)
    assert len(svgs) >= {"nothing_known": 0, "evil": 10}.get(name, 12)
    for svg in svgs:
        head = re.match(
            r'<svg [^>]*viewBox="0 0 (\d+) (\d+)" width="\1" height="\2" role="img" aria-label="[^"]+">', svg
        )
        assert head, svg[:300]
        assert re.search(r"<title>.+?</title><desc>.+?</desc>", svg, re.DOTALL)
    figures = re.findall(r"<figcaption><b>.+?</b> <span>.+?</span></figcaption>", pages[name], re.DOTALL)
    assert len(figures) == pages[name].count("<figure")


def test_no_number_is_nan_or_infinite_in_a_picture(pages):
    for text in pages.values():
        for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
            shapes = re.sub(r"<(title|desc|text)\b.*?</\1>", "", svg, flags=re.DOTALL)
            assert not re.search(r'="[^"]*\b(nan|inf|None)\b', shapes)


def test_names_do_not_break_out(pages):
    """Nothing of the name's markup is left, and it can still be read."""
    parsed = Parsed(pages["evil"])
    assert parsed.all("script") == parsed.all("img") == []
    assert "&lt;/title&gt;&lt;/svg&gt;&lt;script&gt;" in pages["evil"]
    assert any("<script>document.title='broken out'</script>" in text for text in parsed.texts)


@pytest.mark.parametrize("verdict", [True, False, None])
@pytest.mark.parametrize("by_decay", [True, False, None])
def test_the_verdict_is_said_first_and_big(verdict, by_decay):
    diagnosis = hand_made.collapsed_mlp()
    diagnosis["verdict"] |= {"collapsed": verdict, "by_decay": by_decay}
    heading = re.search(
        r'<header id="verdict" class="verdict (\w+)">.*?<h1>.*?</span> (.*?)</h1>', page.page(diagnosis), re.DOTALL
    )
    words = {
        (True, True): "Collapsed, and weight decay does it",
        (True, False): "Collapsed, but not by weight decay",
        (True, None): "Collapsed",
    }
    expected = {
        False: ("good", "Not collapsed"),
        None: ("unknown", "It cannot be told whether this model is collapsed"),
    }
    assert heading.groups() == expected.get(verdict, ("bad", words.get((verdict, by_decay))))


def test_all_of_the_advice_is_there_with_its_evidence(pages):
    text = Parsed(pages["collapsed_mlp"]).texts
    for entry in hand_made.collapsed_mlp()["advice"]:
        for sentence in (entry["do"], entry["because"], *entry["evidence"], f"How sure: {entry['sure']}"):
            assert sentence in text


def test_of_much_evidence_most_unfolds_and_none_is_lost():
    diagnosis = hand_made.collapsed_mlp()
    diagnosis["advice"][0]["evidence"] = [f"Measured in figure {place}." for place in range(7)]
    text = page.page(diagnosis)
    folded = re.search(r"<summary>5 more</summary>(.*?)</details>", text, re.DOTALL)[1]
    assert re.findall(r"figure (\d)\.", folded) == ["2", "3", "4", "5", "6"]
    assert re.findall(r"Measured in figure (\d)\.", text) == ["0", "1", "2", "3", "4", "5", "6"]


def test_what_was_not_looked_at_is_said_with_the_reason(pages):
    text = " ".join(Parsed(pages["nothing_known"]).texts)
    for sentence in (
        "Not looked at: the forward pass asks for arguments that could not be guessed.",
        "Not looked at: no batches were given.",
        "Not looked at: no optimizer was given.",
        "Not looked at: no parameter has two axes.",
    ):
        assert sentence in text
    assert "Not looked at" not in pages["collapsed_mlp"]


def test_it_is_the_same_from_json(pages):
    """The numbers of numpy are not needed, and None, lists and dicts are all there is."""
    for name in ("collapsed_mlp", "healthy_transformer", "nothing_known"):
        assert page.page(json.loads(json.dumps(getattr(hand_made, name)()))) == pages[name]


def test_a_diagnosis_without_some_entry_still_has_a_page():
    many = [page.page(diagnosis) for diagnosis in hand_made.damaged()]
    assert len(many) > 200
    assert len(set(many)) > 80  # it shows
    for text in {*many, page.page({})}:
        assert Parsed(text).wrong == []


# ---- its pictures ----------------------------------------------------------------------------------------------------


def rects(svg, css):
    """(left, top, width, height, tip) of the rectangles of a class."""
    found = re.findall(
        r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" class="(\w+)"[^>]*?(?:/>|><title>(.*?)</title>)', svg
    )
    return [(*map(float, one[:4]), one[5]) for one in found if one[4] == css]


def counts(svg, css):
    return sum(int(re.match(r"\d+", tip)[0]) for *_, tip in rects(svg, css))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_histogram_has_every_unit_once_and_the_symmetric_ones_in_their_colour(place):
    entry = hand_made.collapsed_mlp()["units"][place]
    svg = charts.distances(entry)
    assert (counts(svg, "bad"), counts(svg, "main")) == (entry["symmetric"], entry["count"] - entry["symmetric"])
    assert all(left == pytest.approx(56, abs=0.1) for left, *_ in rects(svg, "bad"))  # at 0
    ((left, _, width, height, _),) = rects(svg, "zone")
    assert left == pytest.approx(56, abs=0.1)
    assert width > 5
    assert height > 100


def test_the_random_network_stands_where_its_median_is():
    entry = {"name": "a", "count": 3, "symmetric": 0, "distances": [0.25, 0.5, 1.0], "nearest": {"random": 0.5}}
    svg = charts.distances(entry)
    at = float(re.search(r'<line x1="(\S+)" [^>]*class="chance"', svg)[1])
    bars = rects(svg, "main")
    assert len(bars) == 3
    assert bars[1][0] - 0.1 <= at <= bars[1][0] + bars[1][2] + 0.7  # the bar of the unit at 0.5
    assert "random network" not in charts.distances({**entry, "nearest": {"random": math.nan}})


def test_a_random_matrix_has_the_spectrum_of_a_random_matrix():
    """And the control: that of another shape is not it."""
    noise = np.random.default_rng(0)
    for rows, columns in ((200, 200), (300, 100), (40, 400)):
        measured = np.linalg.svd(noise.standard_normal((rows, columns)), compute_uv=False)
        order = np.linspace(0, len(measured) - 1, 30).round().astype(int)
        expected = charts.random_spectrum(rows, columns, 30)
        assert expected == pytest.approx(list(measured[order] / measured[0]), abs=0.04)
    assert charts.random_spectrum(300, 100, 30) != pytest.approx(charts.random_spectrum(200, 200, 30), abs=0.04)


def test_a_spectrum_is_over_its_largest_value_and_what_is_0_lies_on_the_floor():
    svg = charts.spectrum("a", [10.0, 1.0, 0.0], "b", "across", "up")
    heights = [float(y) for y in re.findall(r'transform="translate\(\S+ (\S+)\)"', svg)]
    top, bottom = 18, charts.SMALL[1] - 38
    assert heights == pytest.approx([top, top + (bottom - top) / 8, bottom], abs=0.1)  # 1, 1e-1, 1e-8
    assert ">1e-8<" in svg


def test_bars_over_the_layers_are_as_high_as_their_values():
    values = [1.0, 0.5, 0.0, None]
    series = Series(name="a", values=values, tips=["1", "2", "3", "4"], css="bad", shape="bar")
    svg = charts.over_layers("t", "d", ["a", "b", "c", "d"], [Panel(title="p", up="u", series=[series])])
    bars = rects(svg, "bad")
    assert [(height, tip) for *_, height, tip in bars] == [(118, "1"), (59, "2")]
    assert [tip for *_, tip in rects(svg, "ref")] == ["3"]  # nothing was found: a stub; what is None was not measured


def test_sets_of_units_stand_at_the_weight_that_makes_them():
    labels = ["embed.weight", "blocks.0.fc1.weight", "blocks.0.fc2.weight"]
    sets = [
        {"name": "stream", "count": 4, "symmetric": 1, "made_by": ["embed.weight[1]", "blocks.0.fc2.weight[0]"]},
        {"name": "hidden", "count": 4, "symmetric": 4, "made_by": ["blocks.0.fc1.bias[0]", "blocks.0.fc1.weight[0]"]},
        {"name": "more", "count": 4, "symmetric": 0, "made_by": ["elsewhere[0]"]},
    ]
    panel = sections._symmetry_panel(sets, labels, places=True)
    assert panel.series[0].values == [0.25, 1.0, None]
    assert panel.series[0].tips[1] == "hidden: 4 of 4 units. more: 0 of 4 units. "


def test_of_many_layers_the_worst_of_neighbours_stay():
    count = 2 * sections.PLACES
    values = [0.5] * count
    values[6], values[9] = 0.1, 0.9
    names = [str(place) for place in range(count)]
    both = [Series(name="a", values=values, tips=names, shape=shape) for shape in ("circle", "bar")]
    note, labels, (panel,) = sections.thinned(names, [Panel(title="p", up="u", series=both)])
    ranks, bars = panel.series
    assert (len(labels), "2 layers in a row" in note) == (sections.PLACES, True)
    assert (ranks.values[3], ranks.tips[3], ranks.values[4]) == (0.1, "6", 0.5)
    assert (bars.values[3], bars.values[4], bars.tips[4]) == (0.5, 0.9, "9")


def test_heads_are_as_strong_as_their_rank_and_equal_ones_have_a_ring():
    entry = {"name": "a", "count": 3, "equal": [[0, 2]], "query_key": {"rank/effective": [0, 8, 16], "full": 16}}
    strips = [sections._strip(entry, key) for key in ("query_key", "output_value")]
    svg = charts.heat("t", "d", strips)
    strength = [float(value) for value in re.findall(r'fill-opacity="(\S+)"><title>a, head', svg)]
    assert strength == pytest.approx([0.06, 0.53, 1.0])
    assert len(rects(svg, "ring")) == 4
    assert len(rects(svg, "unknown")) == 3


def test_decay_and_gradient_stand_on_one_logarithmic_axis():
    svg = charts.pulls("t", "d", [hand_made.pull("a", decay=1e-2, gradient=1e-4, inward=0.25)])
    marks = [
        (float(x), css) for x, css in re.findall(r'transform="translate\((\S+) \S+\)" class="(bad|main)"><title>', svg)
    ]
    gradient, decay = marks[2][0], marks[3][0]  # of the broken part
    lines = {label: float(x) for x, label in re.findall(r'<text x="(\S+)" [^>]*class="middle">([\d.e-]+)</text>', svg)}
    assert [css for _, css in marks] == ["main", "bad", "main", "bad"]
    assert (gradient, decay) == (pytest.approx(lines["1e-4"], abs=0.2), pytest.approx(lines["0.01"], abs=0.2))
    assert ">25%</text>" in svg


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    return Chromium(tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize(("asked", "outcome"), [("", "Skipped"), ("1", "Failed")])
def test_without_a_browser_these_are_skipped_or_fail_where_it_was_asked_for(tmp_path, monkeypatch, asked, outcome):
    (tmp_path / "browser.sh").write_text("echo skipped: none here >&2; exit 77")
    monkeypatch.setattr(browser, "SCRIPT", tmp_path / "browser.sh")
    monkeypatch.setenv("SYRE_BROWSER", asked)
    with pytest.raises(BaseException, match="none here") as raised:
        browser.found()
    assert raised.typename == outcome


WRONG = (
    "<!doctype html><title>wrong</title><body><div style='width:900px'>wide</div><img src='http://127.0.0.1:9/a.png'>"
    "<svg viewBox='0 0 90 20' width=90 height=20 aria-label=cut><text x=80 y=15>beyond the edge</text></svg>"
    "<script>console.error('a mistake')</script>"
)


@pytest.mark.slow
def test_the_browser_shows_it_whole_at_any_width_and_asks_for_nothing(chromium, pages):
    tried = {(name, width): pages[name] for name in MADE for width in (320, 390, 1280)}
    seen = measured(chromium, tried)
    assert seen.said == []
    assert len(seen.found) == len(tried)
    for (name, width), text in tried.items():
        one = seen.found[f"{name}-{width}"]
        assert one["sections"] == SECTIONS
        assert (one["scripts"], one["asked"]) == (0, [])
        assert one["title"] != "broken out"
        assert one["pictures"] == len(one["open"]["svgs"]) == text.count("<svg ")
        for state in ("closed", "open"):
            assert (one[state]["width"], one[state]["scrolls"], one[state]["wider"]) == (width, width, [])
            for svg in one[state]["svgs"]:
                assert min(svg["width"], svg["height"]) > 40, svg
                assert svg["scale"] > 0.85, svg  # its letters can be read
                assert svg["cut"] == [], svg


@pytest.mark.slow
def test_what_is_wrong_with_a_page_is_seen(chromium):
    """The control: a page that is too wide, asks for a picture, cuts a text off and logs an error."""
    seen = measured(chromium, {("wrong", 390): WRONG})
    one = seen.found["wrong-390"]
    assert any("a mistake" in line for line in seen.said)
    assert one["closed"]["scrolls"] > 900
    assert any("wide" in text for text in one["closed"]["wider"])
    assert one["asked"] == ["http://127.0.0.1:9/a.png"]
    assert [svg["cut"] for svg in one["closed"]["svgs"]] == [["beyond the edge"]]
    assert one["scripts"] == 1


@pytest.mark.slow
def test_the_file_opens_by_itself_and_in_the_dark(chromium, pages, tmp_path):
    opened = chromium.open(hand_made.collapsed_mlp().save(tmp_path / "page.html"))
    assert opened.said == []
    assert [key for key in SECTIONS if f'id="{key}"' in opened.dom] == SECTIONS
    dark = measured(chromium, {("page", 390): pages["collapsed_mlp"]}, "--blink-settings=preferredColorScheme=0")
    assert dark.said == []
    assert dark.found["page-390"]["background"] == "rgb(20, 23, 26)"
