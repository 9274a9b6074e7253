"""The report in headless Chromium, as a reader has it. Runs in ``make test-optional``, which brings playwright."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reporting.conftest import HOSTILE
from reporting.test_report import records_of

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-optional")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    if CHROMIUM is None:
        reason = "Chromium is not installed: apt-get install chromium"
        if os.environ.get("VIRNUCPRO_REQUIRE_GOLDEN") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield started
        started.close()


class Reader:
    """A page in the browser, and all that it asked for and complained of."""

    def __init__(self, browser: "sync_api.Browser", page: Path, **settings: object):
        self.tab = browser.new_page(**settings)
        self.asked_for: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked_for.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(page.as_uri())

    def names(self) -> list[str]:
        """Names of the records that the table shows now."""
        return self.tab.locator("#top tbody tr:visible td:nth-child(2)").all_text_contents()


@pytest.fixture
def reader(browser: "sync_api.Browser", finished: Path) -> Iterator[Reader]:
    reader = Reader(browser, finished / "report.html")
    yield reader
    assert reader.complaints == []
    reader.tab.close()


def test_every_chart_is_drawn_and_nothing_leaves_the_page(reader: Reader, finished: Path) -> None:
    charts = reader.tab.locator(".chart")
    assert charts.count() == 5
    for number in range(charts.count()):
        charts.nth(number).scroll_into_view_if_needed()
        charts.nth(number).locator(".main-svg").first.wait_for()
        assert charts.nth(number).locator(".bars path, .trace path").count() > 0
    assert reader.asked_for == [(finished / "report.html").as_uri()]


def test_names_do_nothing(reader: Reader) -> None:
    shown = reader.names()
    assert set(HOSTILE) & set(shown)
    assert reader.tab.evaluate("window.hacked") is None
    assert reader.tab.locator("img").count() == 0
    options = reader.tab.locator("#track-choice option").all_text_contents()
    for number in range(len(options)):
        reader.tab.select_option("#track-choice", str(number))
    assert reader.tab.evaluate("window.hacked") is None


def test_the_table_sorts_by_what_is_clicked(reader: Reader, finished: Path) -> None:
    viral = [row for row in records_of(finished) if row["call"] == "virus"]
    length = reader.tab.get_by_role("button", name="length, nt")
    length.click()
    longest_first = sorted(viral, key=lambda row: -int(row["length"]))
    assert reader.names()[0] == longest_first[0]["sequence_id"]
    assert reader.tab.locator("#top th").nth(2).get_attribute("aria-sort") == "descending"
    length.click()
    assert reader.names()[-1] == longest_first[0]["sequence_id"]
    reader.tab.get_by_role("button", name="name", exact=True).click()
    assert len(reader.names()) == len(viral)
    assert reader.tab.locator("#top th").nth(2).get_attribute("aria-sort") == "none"


def test_the_table_shows_what_is_filtered(reader: Reader, finished: Path) -> None:
    viral = [row for row in records_of(finished) if row["call"] == "virus"]
    wanted = viral[0]["sequence_id"]
    reader.tab.fill("#filter", wanted[:-1].upper())
    assert wanted in reader.names()
    assert all(wanted[:-1].lower() in name.lower() for name in reader.names())
    reader.tab.fill("#filter", "")
    reader.tab.fill("#least", "0.7")
    sure = {row["sequence_id"] for row in viral if float(row["max_virus_score"]) >= 0.7}
    assert set(reader.names()) == sure
    assert reader.tab.text_content("#shown") == f"{len(sure)} of {len(viral)} shown"


def test_a_chunk_tells_the_scores_of_its_frames(reader: Reader) -> None:
    chart = reader.tab.locator("#track")
    chart.scroll_into_view_if_needed()
    chart.locator(".point").first.wait_for()
    box = chart.locator(".point").first.bounding_box()
    assert box is not None
    reader.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = chart.locator(".hovertext")
    hover.first.wait_for()
    text = " ".join(hover.all_text_contents())
    assert "nt" in text
    assert any(frame in text for frame in ("F1", "F2", "F3", "R1", "R2", "R3", "no open frame"))


def test_names_lead_into_the_fasta_file(reader: Reader, finished: Path) -> None:
    link = reader.tab.locator("#top tbody a").first
    name = link.text_content()
    link.click()
    reader.tab.wait_for_url("**/viral.fasta*")
    assert f">{name}" in (reader.tab.text_content("body") or "")


def test_dark_and_printed_pages_have_their_own_colours(browser: "sync_api.Browser", finished: Path) -> None:
    colours = {}
    for name, settings in {"light": {}, "dark": {"color_scheme": "dark"}}.items():
        reader = Reader(browser, finished / "report.html", **settings)
        reader.tab.locator("#record-scores .main-svg").first.wait_for()
        style = "getComputedStyle(document.body)"
        colours[name] = reader.tab.evaluate(f"[{style}.color, {style}.backgroundColor]")
        colours[f"{name} axis"] = reader.tab.evaluate(
            "getComputedStyle(document.querySelector('#record-scores .xtick text')).fill"
        )
        if name == "dark":
            reader.tab.emulate_media(media="print")
            assert reader.tab.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
            assert not reader.tab.locator("#filter").is_visible(), "of no use on paper"
            reader.tab.locator("#stages .main-svg").first.wait_for()  # not scrolled to, and drawn for paper
        assert reader.complaints == []
        reader.tab.close()
    assert colours["light"] != colours["dark"]
    assert colours["light axis"] != colours["dark axis"]


def test_a_phone_scrolls_in_one_direction(browser: "sync_api.Browser", finished: Path) -> None:
    reader = Reader(browser, finished / "report.html", viewport={"width": 400, "height": 800})
    assert reader.tab.evaluate("document.documentElement.scrollWidth") <= 400
    reader.tab.close()


def test_all_but_charts_is_there_without_scripts(browser: "sync_api.Browser", finished: Path) -> None:
    reader = Reader(browser, finished / "report.html", java_script_enabled=False)
    viral = [row for row in records_of(finished) if row["call"] == "virus"]
    assert len(reader.names()) == len(viral)
    reader.tab.close()
