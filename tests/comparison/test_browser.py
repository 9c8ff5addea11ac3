"""The page in a real browser: nothing is cut, tables sort, thousands of users scroll, all of it by keyboard."""

import json
import re
import shutil
import subprocess
from datetime import datetime, timezone

import pytest

from recalign.comparison.gallery import draw_all
from recalign.comparison.trail import trail_of
from recalign.comparison.users import Users
from recalign.comparison.webpage import FOLDER, to_html

from .conftest import HOSTILE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on PATH (Debian: apt install chromium)")
ROWS = 5000
PROBE = """
const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
const one = (selector, root) => (root || document).querySelector(selector);
const set = (id, value) => { one("#" + id).value = value; one("#" + id).dispatchEvent(new Event("change")); };
const frames = () => new Promise((done) => setTimeout(done, 250));
const column = (table, place) => all("tbody tr", table).map((row) => row.cells[place].textContent);
async function probe() {
  const told = { width: innerWidth, over: document.documentElement.scrollWidth - innerWidth };
  const within = (node) => node.getBoundingClientRect().right <= innerWidth || node.closest(".scroll, pre");
  told.wide = all("main svg, main pre, main td, main li").filter((node) => !within(node)).length;
  const means = one("#means table"), heading = all("thead th", means)[2];
  heading.querySelector("button").click();
  told.down = [heading.ariaSort, ...column(means, 2)];
  heading.querySelector("button").click();
  told.up = [heading.ariaSort, ...column(means, 2)];
  const scroll = one("#means .scroll");
  scroll.scrollLeft = 40;
  told.stays = one("tbody th", scroll).getBoundingClientRect().left - scroll.getBoundingClientRect().left;
  const tabs = all("#ranking [role=tab]");
  tabs[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  told.tabs = tabs.map((tab) => tab.ariaSelected);
  told.panels = all("#ranking [role=tabpanel]").map((panel) => panel.offsetHeight > 0);
  told.lines = all(".line").length;
  told.count = one("#count").textContent;
  told.worst = one(".line .delta").textContent;
  set("order", "gain");
  told.best = one(".line .delta").textContent;
  told.hits = all("#row td.hit").map((cell) => cell.textContent);
  told.invalid = all("#row td.invalid").length;
  const list = one("#list");
  list.dispatchEvent(new KeyboardEvent("keydown", { key: "End" }));
  await frames();
  told.end = [all(".line").length, one("[aria-selected=true].line").ariaPosInSet, list.scrollTop > 100000];
  const active = one("#" + list.getAttribute("aria-activedescendant")).getBoundingClientRect();
  told.seen = active.bottom <= list.getBoundingClientRect().bottom + 1;
  one("#search").value = "ITEM 7";
  one("#search").dispatchEvent(new Event("input"));
  await frames();
  told.found = [one("#count").textContent, one("#row mark").textContent];
  one("#search").value = "no such thing";
  one("#search").dispatchEvent(new Event("input"));
  await frames();
  told.none = [one("#count").textContent, one("#row").textContent, all(".line").length];
  told.paper = [0, 1, 2].map(() => { one("#theme").click(); return getComputedStyle(document.body).backgroundColor; });
  const note = one(".note");
  note.dispatchEvent(new FocusEvent("focusin", { bubbles: true }));
  told.note = [one("#note").textContent === note.dataset.note, one("#note").hidden];
  told.title = document.title;
  told.faults = faults;
  parent.postMessage(JSON.stringify(told), "*");
}
addEventListener("load", probe);
"""
FRAME = """<!doctype html><script>
addEventListener("message", (event) => {{ document.body.textContent = event.data; }});
</script><body><iframe src="page.html" style="border: 0; width: {width}px; height: 900px"></iframe></body>"""


def row(number):
    """User `number`: item `number % 50` is the target, system b names it, a names something else."""
    item = number % 50
    lists = [[50, 51, -1], [item, item, 51]]
    return (f"user {number}", number, [item], 3, [item, 50], [1.0, 0.0], lists, [[0.0, 0.5], [number / ROWS, 0.5]])


@pytest.fixture(scope="module")
def page(hostile):
    titles = (*(f"Item {number}" for number in range(50)), HOSTILE, "Other")
    users = Users((HOSTILE, "b"), titles, ("ndcg@2", "mgu"), tuple(map(row, range(ROWS))), ROWS, False, {})
    trails = {s.name: [trail_of(run) for run in s.runs] for s in hostile.systems if not s.baseline}
    return to_html(hostile, draw_all(hostile, trails), trails, users, datetime(2026, 1, 2, tzinfo=timezone.utc))


def opened(page, width, folder):
    """Open the page in a browser of some width, run the probe, and return what it told."""
    listen = "<script>window.faults = []; addEventListener('error', (event) => faults.push(event.message));</script>"
    file = folder / "page.html"
    file.write_text(
        page.replace("<head>", f"<head>{listen}").replace("</body>", f"<script>{PROBE}</script></body>"), "utf-8"
    )
    frame = folder / "frame.html"  # a window of the browser cannot be as narrow as a telephone, a frame can
    frame.write_text(FRAME.format(width=width), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
    command = [CHROMIUM, *options, "--window-size=1400,1000", "--virtual-time-budget=20000", "--dump-dom"]
    text = subprocess.run([*command, frame.as_uri()], capture_output=True, timeout=180, check=True).stdout.decode(
        "utf-8"
    )
    shown = re.search(r"<body>(\{.*\})</body>", text, re.DOTALL)[1]
    for name, letter in (("lt", "<"), ("gt", ">"), ("nbsp", "\u00a0"), ("amp", "&")):
        shown = shown.replace(f"&{name};", letter)
    return json.loads(shown)


@needs_chromium
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_works_at_every_width(page, width, hostile, tmp_path):
    told = opened(page, width, tmp_path)
    assert told["faults"] == [] and told["title"].startswith("blade 0.1, blade 1.0, bon (oracle) against")  # not owned
    assert (told["width"], told["over"], told["wide"]) == (width, 0, 0)

    assert (told["down"][0], told["up"][0]) == ("descending", "ascending")
    values = [float(text) for text in told["down"][1:]]
    assert values == sorted(values, reverse=True) and len(values) == len(hostile.systems)
    assert [float(text) for text in told["up"][1:]] == sorted(values)
    assert 0 <= told["stays"] <= 1

    assert told["tabs"] == ["false", "true"] and told["panels"] == [False, True]
    assert 0 < told["lines"] < 40 and told["count"] == "5,000 rows"
    assert (told["worst"], told["best"]) == ("0.000", "+1.000")
    assert told["hits"] == ["✓ Item 49"]  # the second time it is no hit
    assert told["invalid"] == 1
    assert told["end"][0] < 40 and told["end"][1:] == ["5000", True] and told["seen"]
    assert told["found"] == ["100 rows", "Item 7"]
    assert told["none"] == ["0 rows", "No row matches.", 0]
    assert told["paper"][0] != told["paper"][1]  # light, dark
    assert told["note"] == [True, False]


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    """The ratio of WCAG 2.2, 1 to 21."""
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_are_told_apart_in_light_and_dark(theme):
    style = (FOLDER / "report.css").read_text("utf-8")
    colours = {name: pair[theme] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("card", "page", "soft"):
        for text in ("ink", "muted", "accent", "gain", "loss"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["hit-ink"], colours["hit"]) >= 4.5
    series = [colour for name, colour in colours.items() if name.startswith("series-")]
    assert len(series) == 8 and min(contrast(colour, colours["card"]) for colour in series) >= 3
