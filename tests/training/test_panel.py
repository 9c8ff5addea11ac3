"""What a training shows of itself, from a recorded course."""

from dataclasses import replace

import pytest
from rich.console import Console

from recalign.training.panel import TrainingPanel, curve
from recalign.training.standing import Standing
from recalign.training.validation import Validated

SPEED = {
    "rows_per_second": 412.34,
    "tokens_per_second": 35120.4,
    "seconds_per_update": 0.0776,
    "peak_memory_mb": 812.0,
    "seconds_forward": 0.03,
    "seconds_backward": 0.05,
    "seconds_left": 9.0,
}


def sample(user, *titles, hits=(), missed=()):
    listed = [{"rank": rank, "title": title, "hit": title in hits} for rank, title in enumerate(titles, 1)]
    return {"row": 0, "user_id": user, "history": ["Alien", "Heat"], "recommended": listed, "missed": list(missed)}


SAMPLES = [
    sample("42", "Casino", "Fargo", hits=["Fargo"], missed=["Babe", "Rob Roy"]),
    sample("7", "The Usual Suspects, a title that is far too long for a column", None),
    sample("\x1b[2J", "Bad\x1b[31m\nTitle", hits=["Bad\x1b[31m\nTitle"]),
]


@pytest.fixture
def standing():
    """120 of 200 updates done, the first 20 before an interruption; validation was best after 40 of them."""
    now = Standing("sft (msl)", 200, "loss", updates=120, resumed_at=20, began=1000.0)
    for update, loss in ((20, 3.0), (40, 2.0), (60, 1.5), (120, 1.25)):
        now = now.logged({"step": update, "epoch": 1.0, "loss": loss, "grad_norm": 0.5, "learning_rate": 1e-3}, update)
    for update, loss, metric in ((20, 3.0, 0.1), (40, 1.5, 0.3), (60, 2.0, 0.4)):
        now = now.logged({"eval_metric": metric, "eval_loss": loss}, update)
    return now.logged(SPEED, 120).validated(Validated({}, SAMPLES), 60)


def draw(standing, width=100, height=40, *, encoding="utf-8", seconds=50.0):
    console = Console(width=width, height=height, file=Encoded(encoding), color_system=None, legacy_windows=False)
    console.print(TrainingPanel(lambda: standing, lambda: standing.began + seconds))
    return console.file.text


class Encoded:
    """A file of some encoding, which spells out what it cannot hold, as stderr does."""

    def __init__(self, encoding):
        self.encoding, self.text = encoding, ""

    def write(self, text):
        self.text += text.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def flush(self):
        pass


def test_the_panel_tells_figures_best_validation_speed_and_time(standing):
    lines = [" ".join(line.strip("│╭╮─").split()) for line in draw(standing).splitlines()]
    assert lines[0].startswith("sft (msl)")
    assert lines[1].startswith("update 120 of 200") and lines[1].endswith("60%")
    assert lines[2] == "0:00:50 so far, 0:00:40 left"  # 100 updates in 50 s, 80 to come
    assert lines[3].startswith("loss 1.25")
    assert lines[4] == "valid loss 2 best 1.5 at 40 █▁▃"  # what picks the checkpoint goes first
    assert lines[5] == "valid metric 0.4 best 0.4 at 60 ▁▆█"
    assert lines[6] == "412.3 rows/s 35,120 tokens/s 0.0776 s a step 812 MB"
    assert lines[7] == "a step: forward 38% backward 62%"
    assert lines[8] == "grad_norm 0.5 learning_rate 0.001"


def test_parts_that_the_newest_updates_did_not_have_or_hardly_are_not_told(standing):
    measured = standing.logged({**SPEED, "seconds_reference": 0.02, "seconds_data": 1e-5}, 120)
    assert "a step:  forward 30%  reference 20%  backward 50%" in draw(measured)
    assert "a step:  forward 38%  backward 62%" in draw(measured.logged(SPEED, 121))


def test_sample_lists_stand_side_by_side_with_their_hits_marked(standing):
    text = draw(standing)
    assert "lists after update 60, ✓ what the user chose" in text
    row = next(line for line in text.splitlines() if "Casino" in line)
    assert "1   Casino" in row and "1   The Usual Suspects" in row and "1 ✓ Bad" in row
    assert "…" in row  # a long title is cut
    assert "2 ✓ Fargo" in text and "2   (no item)" in text
    assert "after Heat" in text and "2 missed: Babe" in text


def test_titles_and_users_cannot_steer_the_terminal_or_break_the_frame(standing):
    text = draw(standing)
    assert "\x1b" not in text and "\\x1b[31m Title" in text and "user \\x1b[2J" in text
    assert {len(line) for line in text.splitlines()} == {100}


def test_what_goes_on_beside_training_is_said(standing):
    assert "left, validating" in draw(replace(standing, activity="validating"))


@pytest.mark.parametrize("width", [1, 2, 5, 9, 20, 39, 40, 41, 60, 79, 100, 250])
@pytest.mark.parametrize("height", [1, 2, 5, 11, 24, 60])
def test_it_fits_any_terminal(standing, width, height):
    lines = draw(standing, width, height).splitlines()
    assert len(lines) <= max(height - 1, 2) or width < 5
    assert max(map(len, lines)) <= min(width, 100) or width < 5


def test_what_has_no_room_is_left_out_from_the_least_important_on(standing):
    whole = draw(standing, 100, 40).count("\n") + 1  # a line for the cursor
    names = ("0:00:50 so far", "valid loss", "rows/s", "lists after", "a step:", "grad_norm")
    shown = [[name for name in names if name in draw(standing, 100, height)] for height in range(whole, 3, -1)]
    assert shown[0] == list(names)
    assert shown[1] == list(names[:5])  # a line less: further figures go
    assert shown[2] == list(names[:4])
    assert shown[-2] == [names[0]]


def test_a_terminal_without_such_characters_gets_others(standing):
    text = draw(standing, encoding="ascii")
    assert "2 * Fargo" in text and "* what the user chose" in text


def test_a_training_that_has_just_begun_shows_what_there_is():
    text = draw(Standing("align", 10, "reward", began=0.0), seconds=3.0)
    assert "update 0 of 10" in text and "0:00:03 so far" in text
    assert "left" not in text and "valid" not in text and "None" not in text
    assert "0%" in draw(Standing("align", 0, "reward"))


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [([0, 7, 3.5], 24, "▁█▅"), ([1, 3, 5, 7], 2, "▁█"), ([2], 24, "▁"), ([5, 5], 24, "▁▁"), (range(8), 8, "▁▂▃▄▅▆▇█")],
)
def test_curves_by_hand(values, width, drawn):
    assert curve(list(values), width) == drawn


def test_the_best_is_the_first_of_equals_and_the_lowest_loss_or_the_highest_metric():
    standing = Standing("sft", 9, "loss")
    for update, loss, metric in ((1, 2.0, 0.5), (2, 1.0, 0.5), (3, 1.0, 0.4)):
        standing = standing.logged({"eval_loss": loss, "eval_metric": metric}, update)
    assert standing.best("loss") == (2, 1.0)
    assert standing.best("metric") == (1, 0.5)


def test_the_note_beside_a_bar_has_the_newest_figures(standing):
    assert standing.note() == "loss 1.25  valid loss 2  valid metric 0.4  tokens/s 35,120  MB 812"


def test_the_trainers_last_words_are_no_figures(standing):
    assert standing.logged({"train_runtime": 3.0, "train_loss": 1.0, "loss": 9.0}, 200) is standing
