import re
from xml.etree import ElementTree

import pytest

from recalign.comparison.figures import SERIES, draw, inline, looks, plain
from recalign.comparison.gallery import draw_all, write_figures
from recalign.comparison.plots import forest, intervals, ranked, user_differences, wins

from .conftest import HOSTILE


def test_systems_are_ranked_by_what_is_better(hostile):
    assert ranked(hostile, "ndcg@2")[:2] == ["blade 1.0", "bon"]  # alike: in the order given
    means = {system.name: system.summary["mgu"].mean for system in hostile.systems}
    assert [means[name] for name in ranked(hostile, "mgu")] == sorted(means.values())


def test_the_page_colours_a_figure_and_ids_are_its_own(hostile):
    drawn = forest(hostile, "ndcg@2")
    one, two = inline(drawn, "a"), inline(drawn, "b")
    for svg, prefix in ((one, "a"), (two, "b")):
        root = ElementTree.fromstring(svg)
        ids = [node.get("id") for node in root.iter() if node.get("id")]
        assert len(ids) == len(set(ids)) and all(name.startswith(f"{prefix}-") for name in ids)
        used = set(re.findall(r"url\(#([^)]*)\)", svg)) | {
            node.get("{http://www.w3.org/1999/xlink}href", "#")[1:] for node in root.iter() if "use" in node.tag
        }
        assert used <= set(ids)
        assert "var(--series-0)" in svg and "var(--font)" in svg
        assert not any(colour in svg for colour in SERIES)
        assert [node.get("data-note") for node in root.iter() if node.get("data-note")] == list(drawn.notes.values())
    assert root.get("aria-label") == drawn.text and HOSTILE in drawn.text


def test_labels_are_text_and_no_mathematics(hostile):
    drawn = draw("a", "a", "a", lambda axes: axes.set_xlabel(r"$\alpha_{1}$ <b>&") and None)
    assert r"$\alpha_{1}$ <b>&" in "".join(ElementTree.fromstring(drawn.svg).itertext())
    assert plain("a\x00b\u2028" + "c" * 40) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}" + "c" * 25 + "…"


def test_the_reference_is_ink_baselines_are_grey_and_oracles_hollow(hostile):
    look = looks(hostile.systems, hostile.reference)
    assert look["blade 0.1"].colour == SERIES[0] and look["blade 1.0"].colour == SERIES[1]
    assert look["bon"].hollow and not look["blade 0.1"].hollow
    baselines = {look[system.name].colour for system in hostile.systems if system.baseline}
    assert len(baselines) == 1 and not baselines & {*SERIES, look[HOSTILE].colour}


def test_wins_count_users_and_follow_the_direction(hostile):
    test = hostile.tests["blade 1.0"]["ndcg@2"]
    note = next(note for note in wins(hostile, "ndcg@2").notes.values() if note.startswith("blade 1.0"))
    assert note == f"blade 1.0: {test.wins} users better, {test.losses} worse, {3 - test.wins - test.losses} alike"
    fair = hostile.tests["popularity"]["mgu"]
    note = next(note for note in wins(hostile, "mgu").notes.values() if note.startswith("popularity"))
    assert note.startswith(f"popularity: {fair.losses} users better, {fair.wins} worse")


def test_differences_of_users_are_sorted_means(hostile):
    values = user_differences(hostile, "blade 1.0", "ndcg@2")
    assert values.tolist() == sorted(values) and len(values) == 3
    assert values.mean() == pytest.approx(hostile.tests["blade 1.0"]["ndcg@2"].difference.mean)


def test_every_figure_is_written_as_svg_and_png_under_a_name_of_its_own(hostile, tmp_path):
    gallery = draw_all(hostile, {})
    files = write_figures(gallery.all, tmp_path)
    assert len(files) == len(set(files)) == 2 * len(gallery.all)
    assert len(gallery.sweeps) == 2 and not gallery.curves and len(gallery.tradeoffs) == 3
    for file in files:
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")
        assert re.fullmatch(r"[A-Za-z0-9.@_+-]+", file.name)


def test_figures_are_the_same_each_time(hostile):
    assert intervals(hostile, "ndcg@2").svg == intervals(hostile, "ndcg@2").svg
    assert draw("a", "a", "a", lambda axes: None).notes == {}
