import json
from datetime import datetime, timezone
from html.parser import HTMLParser

import pytest

from recalign.comparison.gallery import draw_all
from recalign.comparison.systems import compare
from recalign.comparison.trail import trail_of
from recalign.comparison.users import gather_users
from recalign.comparison.webpage import headline, meaning_of, title_of, to_html
from recalign.metrics.ndcg import NDCG

from .conftest import FAIR, GOOD, HOSTILE, POOR


class Page(HTMLParser):
    """Elements, and the text within them, as a browser would read them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style", "td", "th", "h1", "dd", "code"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(comparison):
    trails = {s.name: [trail_of(run) for run in s.runs] for s in comparison.systems if not s.baseline}
    users = gather_users(comparison, ["ndcg@2", "mgu"], 100)
    return to_html(comparison, draw_all(comparison, trails), trails, users, datetime(2026, 1, 2, tzinfo=timezone.utc))


@pytest.fixture(scope="module")
def page(hostile):
    return Page(page_of(hostile))


def test_labels_are_text_wherever_they_stand(page):
    assert page.named("img") == []
    assert len(page.named("script")) == 2  # the data and the script
    cells = page.texts["th"] + page.texts["td"]
    assert cells.count(HOSTILE) >= 3
    assert json.loads(page.texts["script"][0])["reference"] == HOSTILE


def test_the_page_is_whole_by_itself(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, value)
    assert "http" not in page.texts["style"][0] and "@import" not in page.texts["style"][0]


def test_ids_are_unique_and_links_lead_to_them(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.named("a")} <= set(ids)


def test_columns_that_are_alike_for_all_are_a_remark(hostile):
    text = page_of(hostile)
    assert "The same for all systems: validity 1.0000" in text
    assert "the predictions" not in text


def test_metrics_are_defined_with_arrows(page):
    assert any(text.startswith("DCG = sum over positions") for text in page.texts["dd"])
    assert [text.split()[-1] for text in page.texts["th"] if text.startswith("mgu")][0] == "↓"
    assert meaning_of(NDCG).endswith("neither the list nor the best one.")


def test_the_headline_is_the_best_model_that_is_no_oracle(evaluated):
    groups = {
        "sft": [evaluated("head/sft", POOR, baselines=True)],
        "fair": [evaluated("head/fair", FAIR)],
        "bon": [evaluated("head/bon", GOOD, oracle=True)],
    }
    found = compare(groups)
    told = headline(found, "ndcg@2")
    assert (told["metric"], told["name"]) == ("ndcg@2 ↑", "fair")
    assert told["lines"][0].endswith("on sft") and told["lines"][1].startswith("p (Holm)")
    assert told["lines"][2].startswith("best baseline:")
    assert title_of(found) == "fair, bon (oracle) against sft"
    alone = compare({"sft": groups["sft"]})
    assert headline(alone, "ndcg@2")["lines"][0] == "the reference itself" and title_of(alone) == "sft"


def test_what_can_no_longer_be_read_is_said(evaluated):
    run = evaluated("lost", POOR)
    comparison = compare({"lost": [run]})
    (evaluated.folder / "lost/decode-greedy-test/predictions.parquet").unlink()
    assert "The lists cannot be shown" in page_of(comparison)
