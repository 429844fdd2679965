"""The documentation site as readers meet it: built without a warning, every link followed, every page opened in a browser."""

import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
from filelock import FileLock

import sb3_softac
from tests.tabular.test_playground import SETTINGS, SOLVE, exact

if importlib.util.find_spec("furo") is None:  # imported, it would load Sphinx wherever tests are collected
    pytest.skip('the site needs pip install -e ".[docs]"', allow_module_level=True)
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DESKTOP, PHONE = 1280, 390
REPORTS = "studies"
"""Folder of the studies' own reports: documents that are the same on paper, outside of the menu, and light in any case."""
EMOJI = re.compile("[\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; built once, also where several processes test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "site"
    with FileLock(shared / "site.lock"):
        if not folder.exists():
            build(shared)
            (shared / "unfinished_site").rename(folder)
    return folder


def build(shared):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-d", shared / "doctrees", "-b", "html"]
    result = subprocess.run([*command, ROOT / "docs", shared / "unfinished_site"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class Page(HTMLParser):
    """What a page refers to, and what can be referred to on it."""

    def __init__(self, path):
        super().__init__()
        self.references, self.anchors = set(), {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.references |= {attributes[name] for name in ("href", "src") if attributes.get(name)}
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}


def test_every_link_within_the_site_has_its_target(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for reference in page.references:
            address, anchor = urldefrag(reference)
            if re.match(r"[a-z]+:", address) or reference == "#":
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            if not target.is_file() or (target in pages and unquote(anchor) not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {reference}")
    assert not broken, "\n".join(broken)


def public_objects():
    """:return: The classes and functions in ``__all__`` of the package and of its parts, by name."""
    parts = [info.name for info in pkgutil.iter_modules(sb3_softac.__path__) if info.ispkg]
    modules = [sb3_softac, *(importlib.import_module(f"sb3_softac.{part}") for part in parts)]
    named = {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in getattr(module, "__all__", ())
    }
    return {name: value for name, value in named.items() if inspect.isclass(value) or inspect.isfunction(value)}


def described_objects(site):
    """:return: The classes and functions that have an entry in the site."""
    *_header, inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)
    for name, kind, *_ in map(str.split, zlib.decompress(inventory).decode().splitlines()):
        if kind in ("py:class", "py:function", "py:exception"):
            module, _, attribute = name.rpartition(".")
            yield getattr(importlib.import_module(module), attribute)


def test_every_public_object_is_described(site):
    described = {id(value) for value in described_objects(site)}
    public = public_objects()
    assert len(public) > 30
    assert not [name for name, value in public.items() if id(value) not in described]


def test_tables_and_plots_are_made_readable(site):
    results = (site / "results.html").read_text()
    assert re.search(r'<td class="[^"]*\bnumber\b', results) and not re.search(
        r'<td class="[^"]*number[^"]*"><p>[^\d-]', results
    )
    pictures = Page(site / "benchmarks.html").references
    plots = {name for name in pictures if name.endswith("by_environment.svg")}
    assert plots and (site / "benchmarks.html").read_text().count("only-dark") >= len(plots)


def test_front_page_leads_everywhere_from_three_entrances(site):
    front = (site / "index.html").read_text()
    assert re.findall(r'<div class="entrance [^>]*>\s*<p><strong>(.*?)</strong>', front) == [
        "Use it",
        "Reproduce a paper",
        "Teach with it",
    ]
    menu = Page(site / "index.html").references
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    aside = {"index.html", "genindex.html", "search.html", "py-modindex.html"}
    assert not {page for page in pages - aside if not page.startswith(("_modules/", f"{REPORTS}/"))} - menu


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window and without a network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()


# Waits for styles, formulas and pictures, then lists what a reader would complain about
COMPLAINTS = r"""
const [width, patience, done] = arguments, complaints = [];
const right = Math.min(width, document.documentElement.clientWidth);
for (const folded of document.querySelectorAll("details")) folded.open = true;
const formulas = () => window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
const settled = () =>
  document.readyState === "complete" &&
  getComputedStyle(document.body).backgroundColor !== "rgba(0, 0, 0, 0)" &&
  (!document.querySelector(".math") || (window.MathJax && MathJax.startup && MathJax.startup.promise));
const wait = async () => {
  const end = performance.now() + 1000 * patience;
  while (!settled() && performance.now() < end) await new Promise(resolve => setTimeout(resolve, 20));
  await formulas();
};
wait().then(() => {
  for (const image of document.images)
    if (!image.complete || image.naturalWidth === 0) complaints.push("missing picture: " + image.src);
  for (const math of document.querySelectorAll(".math"))
    if (!math.querySelector("mjx-container")) complaints.push("formula left as source: " + math.textContent);
  for (const error of document.querySelectorAll("[data-mml-node=merror], .problematic"))
    complaints.push("formula or role with an error: " + error.textContent);
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const text = words.currentNode.textContent;
    const elsewhere = words.currentNode.parentElement.closest("pre, code, script, style, mjx-container");
    if (!elsewhere && /\$\S[^$]*\$|\\[([a-zA-Z]/.test(text))
      complaints.push("source in the text: " + text.trim());
  }
  for (const code of document.querySelectorAll("div.highlight pre"))
    if (code.scrollWidth > code.clientWidth + 1)
      complaints.push("code cut off: " + code.textContent.slice(0, 80));
  const reach = document.documentElement.scrollWidth;
  if (reach > right) complaints.push(`the page is wider than the window: ${reach} > ${right}`);
  const scrolls = element => {
    for (let box = element; box && box !== document.body; box = box.parentElement)
      if (/auto|scroll/.test(getComputedStyle(box).overflowX) && box.getBoundingClientRect().right <= right) return true;
    return false;
  };
  for (const element of document.querySelectorAll("article *"))
    if (element.getBoundingClientRect().right > right + 1 && element.getClientRects().length && !scrolls(element))
      complaints.push("cut at the right edge: " + element.outerHTML.slice(0, 120));
  done({complaints, ground: getComputedStyle(document.body).backgroundColor, text: document.body.innerText});
});
"""


def look_at(browser, address, width, patience=20):
    """:return: What there is to complain about, the brightness of the background from 0 to 1, and the text."""
    browser.get_log("browser"), browser.get_log("performance")  # of the page before
    browser.get(address)
    seen = browser.execute_async_script(COMPLAINTS, width, patience)
    complaints = seen["complaints"] + [f"console: {line['message']}" for line in browser.get_log("browser")]
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                complaints.append(f"request to another host: {url}")
    brightness = sum(map(float, re.findall(r"[\d.]+", seen["ground"])[:3])) / (3 * 255)
    return complaints, brightness, seen["text"]


def show(browser, width, scheme):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    preference = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_pages_look_as_they_should(site, browser, width, scheme):
    show(browser, width, scheme)
    pages = [path for path in sorted(site.rglob("*.html")) if "_modules" not in path.parts]
    assert len(pages) > 25
    complaints = {}
    for path in pages:
        found, brightness, text = look_at(browser, path.as_uri(), width)
        found += [f"emoji, a box without its font: {mark!r}" for mark in EMOJI.findall(text)]
        if (brightness < 0.5) != (scheme == "dark" and path.relative_to(site).parts[0] != REPORTS):
            found.append(f"background of brightness {brightness:.2f}")
        if found:
            complaints[str(path.relative_to(site))] = found
    assert not complaints, json.dumps(complaints, indent=1)


def shown_results(browser, before=""):
    """:return: The soft value, return and entropy that the playground shows, once they differ from those before."""
    read = """const [before, done] = arguments, look = () => {
        const now = document.querySelector(".playground-results strong")?.textContent ?? before;
        now === before ? setTimeout(look, 20) : done(now);
    }; look();"""
    return browser.execute_async_script(read, before)


def numbers_of(results):
    value, reward, _temperature, entropy = map(float, re.findall(r"-?[\d.]+", results.replace("\u2212", "-")))
    return [value, reward, entropy]


def test_playground_computes_exact_solutions_in_the_browser(site, browser):
    browser.get((site / "index.html").as_uri())
    found = browser.execute_script(f"return ({SOLVE})(arguments[0])", SETTINGS)
    for setting, each in zip(SETTINGS, found, strict=True):
        np.testing.assert_allclose(each, exact(*setting), atol=1e-6, rtol=0, err_msg=str(setting[:4]))


def test_playground_works_by_keyboard(site, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(browser, PHONE, "light")
    browser.get((site / "teach" / "playground.html").as_uri())
    task, grid = shown_results(browser), next(setting for setting in SETTINGS if setting[:2] == ("gridWorld", 0.5))
    browser.find_element(By.CSS_SELECTOR, ".playground-tasks input:checked").send_keys(Keys.ARROW_RIGHT)
    first = shown_results(browser, task)
    assert numbers_of(first) == pytest.approx(exact(*grid)[-3:], abs=0.005)

    browser.find_element(By.CSS_SELECTOR, ".playground input[name=discount]").send_keys(Keys.ARROW_RIGHT)
    second = shown_results(browser, first)
    assert numbers_of(second) == pytest.approx(exact("gridWorld", 0.5, 0.96, *grid[3:])[-3:], abs=0.005)

    picture = browser.find_element(By.CSS_SELECTOR, ".playground-map")
    picture.send_keys(Keys.ARROW_UP)
    mark = browser.find_element(By.CSS_SELECTOR, ".playground-mark").text
    assert mark.startswith("Mark: column 1, row 3. Soft value") and ", up 0." in mark
    picture.send_keys(Keys.ENTER)
    third = shown_results(browser, second)
    assert numbers_of(third) == pytest.approx(exact("gridWorld", 0.5, 0.96, grid[3], [*grid[4], 20])[-3:], abs=0.005)
    picture.send_keys(Keys.ENTER)
    assert shown_results(browser, third) == second


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_playground_moves_only_where_that_is_welcome(site, browser, motion):
    show(browser, DESKTOP, "dark")
    features = [{"name": "prefers-reduced-motion", "value": motion}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get((site / "teach" / "playground.html").as_uri())
    shown_results(browser)
    look_twice = """const done = arguments[0], picture = () => document.querySelector(".playground-map").toDataURL();
        requestAnimationFrame(() => requestAnimationFrame(() => {
            const before = picture();
            setTimeout(() => done(before === picture()), 600);
        }));"""
    assert browser.execute_async_script(look_twice) == (motion == "reduce")


def test_a_picture_stands_for_the_playground_without_javascript(site):
    for page in ("index.html", "teach/playground.html"):
        assert re.search(r'<div class="playground [^>]*>\s*<p><img ', (site / page).read_text())


BAD = """<!doctype html><body><article><img src="none.png"><script>missing()</script><p>Let $x$ be</p>
<span class="math">\\(y\\)</span><script src="https://example.org/x.js"></script>
<div class="highlight"><pre style="overflow: auto; width: 20px">a_long_name = 1</pre></div>
<div style="width: 2000px">wide</div></article>"""


def test_what_is_wrong_is_seen(tmp_path, browser):
    show(browser, DESKTOP, "light")
    (tmp_path / "bad.html").write_text(BAD)
    complaints, _, _ = look_at(browser, (tmp_path / "bad.html").as_uri(), DESKTOP, patience=0)
    for expected in (
        "missing picture",
        "formula left as source",
        "source in the text",
        "the page is wider",
        "cut at the right edge: <div",
        "code cut off: a_long_name",
        "console: ",
        "request to another host: https://example.org/x.js",
    ):
        assert any(complaint.startswith(expected) for complaint in complaints), (expected, complaints)
