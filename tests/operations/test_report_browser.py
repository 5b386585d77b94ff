"""The pages in headless Chromium: axe finds nothing, nothing is cut off at 375 px, nothing is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operations.browser import axe
from operations.report_logs import figures, november
from tmm_core.operations.report.files import write_report

pytest.importorskip("jinja2", reason="Jinja2 is not installed (extra: report)")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
DRIVER = shutil.which("chromedriver") or ""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="chromium or chromedriver is not installed"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(figures(november(tmp_path_factory.mktemp("logs"))), folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


def show(browser: Any, page: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page.as_uri())


PAGES = ["report.html", "statements/northern-energy.html"]


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_nothing(browser: Any, report: Path, page: str, width: int) -> None:
    script = axe()
    show(browser, report / page, width)
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    browser.execute_script(script)
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert found["passes"], "axe ran"
    assert not [
        (each["id"], each["impact"], [node["html"][:120] for node in each["nodes"]][:3])
        for each in found["violations"]
    ]


def test_axe_finds_a_fault_that_is_put_in(browser: Any, report: Path) -> None:
    script = axe()
    show(browser, report / "report.html", 1280)
    browser.execute_script("document.querySelector('svg').removeAttribute('aria-label')")
    browser.execute_script(script)
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert "svg-img-alt" in {each["id"] for each in found["violations"]}


@pytest.mark.parametrize("page", PAGES)
def test_at_375_px_the_page_does_not_scroll_sideways(browser: Any, report: Path, page: str) -> None:
    show(browser, report / page, 375)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    # Each chart is shown once, in its narrow drawing, with letters of at least 12 px.
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].filter(each => each.getClientRects().length)"
        ".map(each => 14 * each.getBoundingClientRect().width / each.viewBox.baseVal.width)"
    )
    figures_there = browser.execute_script("return document.querySelectorAll('figure').length")
    assert len(sizes) == figures_there > 0
    assert min(sizes) >= 12


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_fetched(browser: Any, report: Path, page: str) -> None:
    show(browser, report / page, 1280)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
