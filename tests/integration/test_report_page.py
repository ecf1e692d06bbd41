"""The page in a real browser: what a reader sees, on a screen, a phone and paper."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairshare.analysis import build
from fairshare.analysis.pipeline import build_cell_page
from fairshare.records import CellKey, CellStatus, Mode
from tests.browser import Page, browser, chromium
from tests.results_factory import TWO_TENANTS, FakeTenant, add_cell, make_results

pytestmark = pytest.mark.timeout(300)  # the figures of two pages are drawn first
HOSTILE = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">"
    "<style>main{display:none}</style><a href=javascript:document.title='owned'>x</a>"
    "{{ 7*7 }}\u202e"
)
SEEN = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parts(colour)[3] !== 0) return light(colour);
    }
    return 1;
  };
  const faintest = () => {  // the least contrast of any text that is shown (WCAG 2: 4.5 and more)
    let least = 21;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const e = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !e.getClientRects().length) continue;
      const [a, b] = [light(getComputedStyle(e).color), behind(e)];
      least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    return least;
  };
  const visible = e => e.naturalWidth > 0 && e.getBoundingClientRect().width > 0;
  const links = [...document.querySelectorAll('a')];
  const inside = links.filter(a => a.getAttribute('href').startsWith('#'));
  const names = [...document.querySelectorAll('table')].every(t => t.caption && t.tHead);
  return {
    title: document.title,
    images: document.images.length,
    seen: [...document.images].filter(visible).length,
    described: [...document.images].every(e => e.alt.length > 20),
    leaving: links.length - inside.length,
    broken: inside.filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash),
    links: inside.length,
    landmarks: ['header', 'nav', 'main', 'footer'].map(n => document.querySelectorAll(n).length),
    headings: document.querySelectorAll('h1').length,
    skipped: [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(h => +h.tagName[1])
      .filter((level, i, all) => i > 0 && level > all[i - 1] + 1).length,
    faint: faintest(),
    unscoped: document.querySelectorAll('th:not([scope])').length,
    named: names,
    twice: [...document.querySelectorAll('[id]')].length
      - new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size,
    wide: document.documentElement.scrollWidth,
    width: innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    verdict: document.querySelector('.verdict .run')?.getBoundingClientRect().top ?? -1,
    shown: getComputedStyle(document.querySelector('main')).display,
  };
})()"""


@dataclass(frozen=True)
class Made:
    """The pages that the tests look at."""

    report: Path
    cell: Path
    figures: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page of a folder in which every name is hostile, and that of one of its cells."""
    directory = tmp_path_factory.mktemp("page") / "out"
    tenants = [FakeTenant(HOSTILE, slo={"ttft_s": 1.0}), *TWO_TENANTS[1:]]
    store = make_results(
        directory, modes=(Mode.EXCLUSIVE, Mode.LOGICAL, Mode.MPS), concurrency=(2, 4),
        repetitions=1, tenants=tenants, scenario=f"two {HOSTILE}", window_s=3.0,
    )  # fmt: skip
    key = CellKey("other", Mode.MIG, 2)
    add_cell(store, key, tenants, status=CellStatus.FAILED, reason=f"died: {HOSTILE}")
    log = next(cell for cell in store.cells() if cell.result.key.mode is Mode.LOGICAL)
    (log.dir / "servers" / "s0.log").write_text(f"{HOSTILE}\nlast words of the server\n")
    store.save_matrix({"name": f"n {HOSTILE}", "provenance": {HOSTILE: [HOSTILE]}})
    built = build(directory)
    assert built.report is not None
    page = build_cell_page(directory, log.result.id)
    return Made(built.report, page, len(built.figures))


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A tab of a real browser."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is here; make chromium fetches one, or set CHROMIUM=PATH")
    async with browser(program) as tab:
        yield tab


async def _look(page: Page, path: Path, **how: Any) -> dict[str, Any]:
    await page.open(path.as_uri(), **how)
    seen: dict[str, Any] = await page.value(SEEN)
    return seen


def _sound(seen: dict[str, Any], page: Page, path: Path) -> None:
    """Nothing was complained of, loaded, run, cut off or left without a name."""
    assert page.complaints == []
    away = [url for url in page.requested if not url.startswith(("data:", path.as_uri()))]
    assert away == []
    assert seen["title"] != "owned"
    assert seen["shown"] != "none"
    assert seen["seen"] == seen["images"] > 0
    assert seen["described"]
    assert seen["named"]
    assert (seen["broken"], seen["leaving"], seen["twice"]) == ([], 0, 0)
    assert seen["wide"] <= seen["width"]
    assert (seen["headings"], seen["skipped"], seen["unscoped"]) == (1, 0, 0)
    assert seen["faint"] >= 4.5


async def test_the_page_is_sound_on_a_screen_and_a_phone_light_and_dark(
    page: Page, made: Made
) -> None:
    """No error, every figure visible, every link works, nothing to scroll sideways, nothing run."""
    papers = {}
    for width in (1280, 390):
        for dark in (False, True):
            seen = await _look(page, made.report, width=width, dark=dark)
            _sound(seen, page, made.report)
            assert seen["images"] == made.figures
            assert seen["landmarks"] == [1, 1, 1, 1]
            assert seen["links"] > 10
            assert 0 < seen["verdict"] < 1300  # the first answer is on the first screens
            papers[dark] = seen["paper"]
    assert papers[False] == "rgb(255, 255, 255)"
    assert papers[True] != papers[False]


async def test_a_link_to_a_cell_opens_what_is_said_of_it(page: Page, made: Made) -> None:
    """Cells are folded; the link in their table unfolds the commands and the log's last lines."""
    await page.open(made.report.as_uri(), width=1280)
    find = "[...document.querySelectorAll('details.cell')].find(d => d.textContent.includes('{}'))"
    await page.value(f"window.cell = {find.format('s0.log')}; cell.open")
    anchor = await page.value("cell.querySelector('div[id]').id")
    await page.value(f"document.querySelector('a[href=\"#{anchor}\"]').click()")
    assert await page.value("cell.open")
    text = await page.value("cell.innerText")
    assert "last words of the server" in text
    assert "OMP_NUM_THREADS=1" in text
    assert page.complaints == []


async def test_the_keyboard_reaches_the_content_first(page: Page, made: Made) -> None:
    """The first tab stop is the skip link, is seen then, and leads to the content."""
    await page.open(made.report.as_uri(), width=1280)
    await page.press("Tab", 9)
    focus = "document.activeElement"
    assert await page.value(f"{focus}.className") == "skip"
    assert await page.value(f"{focus}.getBoundingClientRect().left") >= 0
    await page.value(f"{focus}.click()")
    assert await page.value(f"{focus}.id") == "content"


async def test_the_page_prints(page: Page, made: Made) -> None:
    """On paper there are pages, and the style for paper hides what is of no use there."""
    await page.open(made.report.as_uri(), width=1280)
    assert (await page.paper()).startswith(b"%PDF-")
    await page.call("Emulation.setEmulatedMedia", media="print")
    assert await page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert await page.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )


async def test_the_page_of_one_cell_is_sound(page: Page, made: Made) -> None:
    """A cell's own page has its figures, commands and logs, and is as inert as the other."""
    seen = await _look(page, made.cell, width=390)
    _sound(seen, page, made.cell)
    text = await page.value("document.body.innerText")
    assert "last words of the server" in text


async def test_hostile_names_are_read_as_they_are(page: Page, made: Made) -> None:
    """Markup in names reaches the reader as text, in tables, captions and reasons."""
    await page.open(made.report.as_uri(), width=1280)
    text = await page.value("document.body.textContent")
    assert text.count("<script>document.title='owned'</script>") > 10
    assert "{{ 7*7 }}" in text
