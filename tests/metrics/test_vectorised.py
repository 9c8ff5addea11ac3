import numpy as np
import pytest

from recalign.api import Catalogue, ListBatch, Row
from recalign.metrics.expression import parse_expression
from tests.work import lines_run


@pytest.mark.parametrize("text", ["ndcg@5", "recall@5", "mgu", "ild"])
def test_lists_are_scored_together_not_one_by_one(text):
    rng = np.random.default_rng(0)
    names = [str(item) for item in range(1000)]
    genres = [tuple(np.array(list("abcdefghijklmnopqr"))[rng.random(18) < 0.15]) for _ in names]
    catalogue = Catalogue(names, names, genres, names, np.ones(1000, dtype=np.int64))
    rows = [Row(i, str(i), rng.integers(0, 1000, 50), rng.integers(0, 1000, 10), np.ones(10), 0.0) for i in range(256)]
    items = rng.integers(0, 1000, (4096, 10))
    expression = parse_expression(text).bind(catalogue)

    def lines(lists_a_row):
        """Lines of Python for this many lists of each of the 256 rows."""
        count = 256 * lists_a_row
        owners = [row for row in rows for _ in range(lists_a_row)]
        batch = ListBatch(items[:count], np.full(count, 10), owners, np.arange(count) // lists_a_row)
        expression.score(batch)  # what is kept between batches is there
        return lines_run(lambda: expression.score(batch))

    # Telling rows apart takes three lines of Python a list; a score of each list by itself takes dozens.
    assert lines(16) - lines(1) < 5 * 256 * 15
