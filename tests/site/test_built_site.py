"""The site as a visitor has it: from files, in a real browser, on a wide and a narrow screen, without a network."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag

import pytest
from browser import found as program

from experiments.analysis import results
from scripts.site import tables
from scripts.site.devtools import Browser

ROOT = Path(__file__).parents[2]
CLAIMS = tables.claims(ROOT / "results")
FIGURES = [figure.name for figure in tables.figures(ROOT / "results")]
MAIN = ("index.html", "statements.html", "figures/index.html", "figures/fig5.html", "explorer.html", "api/core.html")
RUNS = "explorer.html#view=runs&figure=fig5&metric=accuracy"
LOCAL = ("file:", "data:", "blob:", "about:")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


# ---- links and pictures ----------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.places: set[str] = {""}
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.places |= {named[key] for key in ("id", "name") if named.get(key)}
        self.to += [named[key] for key in ("href", "src") if named.get(key)]
        self.pictures += [named] if tag == "img" else []


def broken(site: Path) -> list[str]:
    """The links within the site that lead nowhere."""
    read = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    wrong = []
    for path, links in read.items():
        for link in links.to:
            address, place = urldefrag(link)
            if re.match(r"[a-z]+:", address) or path.name == "404.html":
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            by_script = target.name == "explorer.html" and "figure=" in place  # the explorer reads it
            there = target.is_file() and (
                target not in read or by_script or unquote(place) in read[target].places or place == "__skip"
            )
            wrong += [] if there else [f"{path.relative_to(site)}: {link}"]
    return wrong


def test_every_link_within_the_site_leads_somewhere(built):
    assert len(list(built.rglob("*.html"))) > 50
    assert broken(built) == []


def test_control_a_link_to_nowhere_and_to_no_place_in_a_page_are_found(built, tmp_path):
    copy = tmp_path / "site"
    shutil.copytree(built, copy, ignore=shutil.ignore_patterns("*.png", "*.pdf", "*.map"))
    page = (copy / "changelog.html").read_text()
    page = page.replace("</article>", '<a href="nowhere.html">x</a><a href="index.html#nothing">y</a></article>')
    (copy / "changelog.html").write_text(page)
    assert {"changelog.html: nowhere.html", "changelog.html: index.html#nothing"} <= set(broken(copy))


def test_every_figure_has_a_page_with_its_picture_in_words_and_size(built):
    for name in FIGURES:
        page = Links((built / f"figures/{name}.html").read_text())
        if (ROOT / f"results/{name}/figure.png").is_file():
            (picture,) = (one for one in page.pictures if one["src"] == f"../pictures/{name}.webp")
            assert picture["alt"].startswith(tables.label(name))
            assert int(picture["width"]) > 300 < int(picture["height"]) + 100
    for path in built.rglob("*.html"):
        assert [one for one in Links(path.read_text()).pictures if not one.get("alt")] == [], path


def test_nothing_of_torch_is_in_its_environment_and_no_host_is_in_its_pages(built):
    packages = {
        path.name.split("-")[0].lower() for path in (ROOT / ".venv-site").glob("lib/*/site-packages/*.dist-info")
    }
    assert {"mkdocs", "pillow"} <= packages
    assert packages & {"torch", "numpy", "pandas", "matplotlib"} == set()
    for path in built.rglob("*.html"):
        loads = re.findall(
            r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"|<link[^>]*\shref="([^"]+)"', path.read_text()
        )
        assert [one for pair in loads for one in pair if re.match(r"(https?:)?//", one)] == [], path


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(program(), tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture
def screen(browser, built):
    """Opens pages of the site: `screen("index.html", width=390)`."""
    opened = []

    def show(path: str, site: Path = built, **settings):
        page = browser.page(**settings)
        opened.append(page)
        name, place = urldefrag(path)
        page.open((site / name).as_uri() + (f"#{place}" if place else ""))
        return page

    yield show
    for page in opened:
        page.close()


def test_every_page_is_quiet_whole_and_asks_for_nothing_but_files(browser, built):
    """On a phone, with every picture loaded, also those further down; nothing is wider than the screen."""
    page = browser.page(width=390, height=844)
    wrong = {}
    for path in sorted(built.rglob("*.html")):
        page.open(path.as_uri())
        missing = page.evaluate(
            """Promise.all([...document.images].map(one => {
                 one.loading = 'eager';
                 return one.decode().then(() => '', () => one.src);
               })).then(all => all.filter(one => one))"""
        )
        asked = [address for address in page.asked() if not address.startswith(LOCAL)]
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if page.said() or missing or asked or wide > 0:
            wrong[str(path.relative_to(built))] = (page.said(), missing, asked, wide)
    page.close()
    wrong.pop("404.html", None)  # it is for a server, and its links begin at the root
    assert wrong == {}


def test_control_an_error_a_picture_that_is_not_there_and_a_request_are_noticed(screen, built, tmp_path):
    text = (built / "changelog.html").read_text()
    script = 'fetch("http://127.0.0.1:9/"); console.error("planted"); nonesuch()'
    planted = f'<img src="none.webp"><script>{script}</script></body>'
    shutil.copytree(built / "assets", tmp_path / "assets")
    (tmp_path / "changelog.html").write_text(text.replace("</body>", planted))
    page = screen("changelog.html", site=tmp_path)
    said = "\n".join(page.said())
    assert "planted" in said
    assert "nonesuch is not defined" in said
    assert "none.webp" in said
    assert [address for address in page.asked() if not address.startswith(LOCAL)] == ["http://127.0.0.1:9/"]


@pytest.mark.parametrize("width", [320, 1280])
def test_the_main_pages_fit_other_screens_too(screen, width):
    for path in (*MAIN, RUNS):
        assert screen(path, width=width).evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


def test_it_follows_the_system_into_the_dark(screen):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (screen("index.html", dark=dark).evaluate(colour) for dark in (False, True))
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 64


def test_in_print_there_is_the_text_and_no_menu(screen):
    page = screen("figures/fig5.html")
    height = "document.querySelector('{}').getBoundingClientRect().height"
    assert page.evaluate(height.format(".md-header")) > 0
    page.call("Emulation.setEmulatedMedia", media="print")
    for part in (".md-header", ".md-sidebar--primary", ".md-tabs"):
        assert page.evaluate(height.format(part)) == 0, part
    assert page.evaluate(height.format(".picture img")) > 100
    assert page.evaluate(height.format(".stack.claims")) > 500


def test_the_search_works_from_a_file(screen):
    page = screen("index.html")
    page.click(".md-search__input")
    page.type(".md-search__input", "anchor")
    page.until("document.querySelectorAll('.md-search-result__item').length > 3")


# ---- the explorer: claims --------------------------------------------------------------------------------------------


def claims_in(page) -> SimpleNamespace:
    """What the explorer says that it has found, and the ids that it shows."""
    count = page.evaluate("document.querySelector('#claim-count').textContent")
    ids = page.evaluate("[...document.querySelectorAll('#claim-list tbody strong')].map(one => one.textContent)")
    return SimpleNamespace(found=int(count.split()[0]), ids=ids)


def wanted(**columns: str) -> list[str]:
    return [row["id"] for row in CLAIMS if all(row[column] == value for column, value in columns.items())]


def test_all_claims_are_there_and_all_can_be_shown(screen):
    page = screen("explorer.html")
    assert claims_in(page).found == len(CLAIMS)
    assert len(claims_in(page).ids) < len(CLAIMS)
    page.click("#more")
    assert sorted(claims_in(page).ids) == sorted(row["id"] for row in CLAIMS)


def test_claims_are_filtered_by_verdict_figure_sigma_gamma_and_words(screen):
    page = screen("explorer.html")
    page.click("input[value='inconclusive']")
    assert claims_in(page).found == len(wanted(verdict="inconclusive")) > 100
    page.choose("#claim-filters [name=figure]", "fig5")
    assert claims_in(page).ids == wanted(verdict="inconclusive", figure="fig5")
    page.click("input[value='inconclusive']")
    page.choose("#claim-filters [name=sigma]", "0.01")
    assert claims_in(page).ids == [name for name in wanted(figure="fig5") if name.endswith("-0.01")] != []
    page.choose("#claim-filters [name=gamma]", "0.0001")
    assert claims_in(page).ids == ["cost-0.01"]
    page.click("#claim-filters [type=reset]")
    page.until(f"document.querySelector('#claim-count').textContent.startsWith('{len(CLAIMS)} of')")
    page.type("#claim-filters [name=text]", "w-fix ACCURACY")
    expected = [r["id"] for r in CLAIMS if all(w in f"{r['id']} {r['text']}".lower() for w in ("w-fix", "accuracy"))]
    assert claims_in(page).found == len(expected) > 1
    page.type("#claim-filters [name=text]", " nonesuch")
    assert (claims_in(page).found, claims_in(page).ids) == (0, [])
    assert page.said() == []


def test_a_link_chooses_and_the_address_keeps_what_is_chosen(screen):
    page = screen("explorer.html#figure=fig1&verdict=not+reproduced")
    assert claims_in(page).ids == wanted(figure="fig1", verdict="not reproduced") != []
    page.choose("#claim-filters [name=figure]", "fig2")
    assert page.evaluate("location.hash") == "#figure=fig2&verdict=not+reproduced"


# ---- the explorer: runs ----------------------------------------------------------------------------------------------


LOADED = "/^[0-9]/.test(document.querySelector('#run-count').textContent)"


def points_in(page) -> list[list[str]]:
    return page.evaluate(
        "[...document.querySelectorAll('#points tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )


def test_a_click_on_a_point_shows_its_runs_with_their_seeds_and_values(screen):
    page = screen(RUNS)
    page.until(LOADED)
    shown = page.evaluate("document.querySelectorAll('#chart .point').length")
    assert shown == len(points_in(page)) > 30
    method = "#settings [name='regularizer.name']"
    options = f"[...document.querySelector({json.dumps(method)}).options].map(one => [one.text, one.value])"
    page.choose(method, dict(page.evaluate(options))["weight_decay"])
    assert 1 < page.evaluate("document.querySelectorAll('#chart .point').length") < shown
    page.click("#chart .point:last-child")
    found = page.evaluate(
        "[...document.querySelectorAll('#point tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    runs = results.load(ROOT / "results", "fig5").final("accuracy").set_index("id")
    assert [int(row[0]) for row in found] == [0, 1, 2, 3, 4]
    for seed, name, status, value, _ in found:
        assert (runs.loc[name, "seed"], runs.loc[name, "status"]) == (int(seed), status)
        assert runs.loc[name, "accuracy"] == float(value)
        assert runs.loc[name, "regularizer.name"] == "weight_decay"
    mean = fmean(float(row[3]) for row in found)
    assert f"{mean:.5g}" in page.evaluate("document.querySelector('#point h2').textContent")
    assert page.said() == []


def test_points_are_means_over_the_seeds_of_one_configuration(screen):
    page = screen(RUNS)
    page.until(LOADED)
    table = results.load(ROOT / "results", "fig5").final("accuracy")
    usual = {
        "data.input_scale": 1.0,
        "regularizer.name": "syre",
        "regularizer.sigma": 1.0,
        "regularizer.start": "shift",
    }
    usual |= {"regularizer.unit": "relative", "regularizer.scope": "all", "regularizer.weight_decay": 0.1}
    arm = results.select(table, **usual)
    assert len(arm) == 5
    header = page.evaluate("[...document.querySelectorAll('#points th')].map(one => one.textContent)")
    rows = [dict(zip(header, row, strict=True)) for row in points_in(page)]
    at = {"γ (weight decay)": "0.1", "method": "syre", "σ (regularizer.sigma)": "1"}
    (row,) = (row for row in rows if at.items() <= row.items())
    assert float(row["mean accuracy"]) == pytest.approx(arm["accuracy"].mean(), rel=1e-4)
    low, _, high = row["smallest to largest"].split()
    assert (float(low), float(high)) == (arm["accuracy"].min(), arm["accuracy"].max())


def test_figure_metric_axis_and_lines_can_be_chosen_for_every_sweep(screen):
    page = screen(RUNS)
    page.until(LOADED)
    every = page.evaluate("[...document.querySelector('#run-filters [name=figure]').options].map(one => one.value)")
    assert every == sorted((path.parent.name for path in (ROOT / "results").glob("*/runs.csv")), key=tables.in_order)
    for name in every:
        page.choose("#run-filters [name=figure]", name)
        page.until(LOADED)
        for control in ("metric", "x", "group"):
            last = page.evaluate(f"[...document.querySelector('#run-filters [name={control}]').options].at(-1).value")
            page.choose(f"#run-filters [name={control}]", last)
        page.choose("#run-filters [name=scale]", "log")
        assert points_in(page), name
        drawn = page.evaluate("document.querySelector('#chart').innerHTML")
        assert "<svg" in drawn
        assert re.findall("NaN|undefined|Infinity", drawn) == []
    assert page.said() == []
