import polars as pl
import pytest

from recalign.errors import UserError
from recalign.preparation.profiles import read_profiles

USERS = pl.LazyFrame({"user_id": ["U1", "u2 "], "profile": ["likes\nnoise", "likes silence"]})


def test_profiles_follow_the_users_and_are_one_line():
    assert read_profiles(USERS, ["x", "U1"]) == ["", "likes noise"]


def test_ids_that_are_one_share_a_profile():
    assert read_profiles(USERS, ["u1", "u2"], "case") == ["likes noise", "likes silence"]
    assert read_profiles(USERS, ["u1", "u2"], "blanks") == ["", "likes silence"]
    with pytest.raises(UserError, match="several profiles"):
        read_profiles(pl.concat([USERS, pl.LazyFrame({"user_id": ["u1"], "profile": ["likes"]})]), ["u1"], "case")
