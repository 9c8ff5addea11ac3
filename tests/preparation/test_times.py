import numpy as np
import pytest

from recalign.errors import UserError
from recalign.preparation import times as module
from recalign.preparation.times import describe, in_seconds, point_of_time, row_order

NEW_YEAR_2014 = 1_388_534_400.0


def test_each_time_is_brought_to_seconds_by_its_own_size():
    time = NEW_YEAR_2014 * np.array([1, 1e3, 1e6, 1e9, -1e3, 0])
    assert in_seconds(time).tolist() == [NEW_YEAR_2014] * 4 + [-NEW_YEAR_2014, 0]
    plain = np.array([0.0, 5, NEW_YEAR_2014])
    assert in_seconds(plain) is plain


def test_numbers_that_only_order_are_no_dates():
    assert describe(np.arange(5.0)) == {"dates": False, "earliest": 0.0, "latest": 4.0}
    assert describe(np.array([20140101.0, 20140102.0]))["dates"] is False


def test_units_and_unlikely_dates_are_counted(monkeypatch):
    monkeypatch.setattr(module.clock, "time", lambda: NEW_YEAR_2014)
    day = 86_400
    time = np.array(
        [NEW_YEAR_2014] * 3 + [NEW_YEAR_2014 * 1e3, 0, -1, 5e8, NEW_YEAR_2014 + 2 * day, NEW_YEAR_2014 + 60]
    )
    assert describe(time) == {
        "dates": True,
        "earliest": "1969-12-31",
        "latest": "2014-01-03",
        "units": {"small": 2, "seconds": 6, "milliseconds": 1},
        "before_1990": 3,
        "in_future": 1,
    }


def test_a_time_beyond_the_calendar_is_a_number():
    told = describe(np.array([NEW_YEAR_2014, NEW_YEAR_2014, -1e300]))
    assert (told["earliest"], told["latest"]) == ("-1e+291 s", "2014-01-01")


A, B = 0, 1


@pytest.mark.parametrize(
    ("user", "time", "order", "share"),
    [
        ([A, A, A, B, B], [3, 2, 1, 5, 4], "newest first", 1.0),  # within each user
        ([A, A, A, B, B], [1, 2, 3, 1, 2], "oldest first", 0.0),
        ([A, B, A, B], [4, 3, 2, 1], "newest first", 1.0),  # over all, users interleaved
        ([A, A, A, A], [1, 2, 1, 2], "mixed", 1 / 3),
        ([A, A], [1, 1], "mixed", 0.0),
        ([A], [1], "mixed", 0.0),
    ],
)
def test_which_way_a_file_runs(user, time, order, share):
    assert row_order(np.array(user), np.array(time)) == {"order": order, "earlier_next": pytest.approx(share)}


def test_points_of_time():
    assert point_of_time("2014-01-01", "--since") == (NEW_YEAR_2014, True)
    assert point_of_time("2014-01-01T01:00:00+01:00", "--since") == (NEW_YEAR_2014, True)
    assert point_of_time("12.5", "--since") == (12.5, False)
    with pytest.raises(UserError, match="--until 'soon'"):
        point_of_time("soon", "--until")
