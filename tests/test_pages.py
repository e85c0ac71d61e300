"""The built pages in a real browser.

``SKEM_PAGES=docs/_build/html pytest tests/test_pages.py`` needs playwright and Chromium.
"""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(os.environ.get("SKEM_PAGES", "")).absolute()
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif("SKEM_PAGES" not in os.environ, reason="set SKEM_PAGES to built pages"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in ROOT.glob("**/*.html")
    if "_modules" not in page.parts and "_static" not in page.parts
)
ESTIMATORS = (
    "BayesianGMM_MAP", "BernoulliRBMCD", "GANEstimator", "ShiftedTemplateEM", "VAEEstimator",
)  # fmt: skip


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tabs(browser):
    """Tabs of a desktop and of a phone, which load nothing from elsewhere, and their errors."""
    tabs = []
    for width, scheme in ((1280, "light"), (390, "dark")):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        context.route(
            lambda url: not url.startswith(("http://127.0.0.1", "data:", "blob:")),
            lambda route: route.abort(),
        )
        # the player of matplotlib's animations asks for its icons, and works without them
        context.route("**/font-awesome*/**", lambda route: route.fulfill(body=""))
        tab, errors = context.new_page(), []
        tab.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        tab.on(
            "console",
            lambda m, errors=errors: errors.append(m.text) if m.type == "error" else None,
        )
        tabs.append((tab, errors))
    return tabs


WIDE = """[...document.querySelectorAll('div.math')]
          .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""
BROKEN = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"


@pytest.mark.parametrize("page", PAGES)
def test_page(page, address, tabs):
    for tab, errors in tabs:
        errors.clear()
        tab.goto(f"{address}/{page}")
        tab.evaluate("window.MathJax?.startup?.promise.then(() => null)")
        assert not errors
        width = tab.evaluate("document.documentElement.scrollWidth")
        assert width <= tab.viewport_size["width"], "the page scrolls sideways"
        assert not tab.evaluate(WIDE), "formulas are wider than their column"
        assert tab.evaluate("document.querySelectorAll('mjx-merror').length") == 0
        assert not tab.evaluate(BROKEN), "pictures are missing"


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    text = page.read_text()
    return frozenset(part.split('"')[0] for part in text.split(' id="')[1:])


@pytest.mark.parametrize("page", PAGES)
def test_links(page, address, tabs):
    tab = tabs[0][0]
    tab.goto(f"{address}/{page}")
    links = tab.evaluate("[...document.links].map(a => a.href)")
    for link in links:
        target, fragment = urldefrag(link)
        if not target.startswith(address):
            continue
        path = ROOT / unquote(urlsplit(target).path).lstrip("/")
        path = path / "index.html" if path.is_dir() else path
        assert path.exists(), link
        if fragment and path.suffix == ".html":
            assert unquote(fragment) in anchors(path), link


@pytest.mark.parametrize("name", ESTIMATORS)
def test_search_finds_the_class_first(name, address, tabs):
    tab = tabs[0][0]
    tab.goto(f"{address}/search.html?q={name}")
    first = tab.wait_for_selector("#search-results li a", timeout=20_000)
    assert name in first.inner_text()
