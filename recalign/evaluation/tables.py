"""Tables for people: figures with intervals, and the before/after table that ends an alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recalign.api import Predictions, Row
from recalign.console import label
from recalign.evaluation.per_user import metric_names, parse_metrics, per_user, summarise
from recalign.evaluation.significance import Interval, Paired, paired
from recalign.metrics.expression import MetricExpression, parse_metric

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from recalign.data.dataset import PreparedDataset

ALIKE = "alike: users without a difference, whom the test leaves out"
BEFORE_AFTER = ("ndcg@3", "ndcg@5", "recall@3", "recall@5", "mgu", "ild")


@dataclass(frozen=True)
class Change:
    """One metric before and after; `paired` is after - before over the same rows."""

    metric: str
    before: Interval
    after: Interval
    paired: Paired

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            **self.paired.as_dict(),
        }


@dataclass(frozen=True)
class BeforeAfter:
    """The before/after table: `changes` by metric, `render` for the console, `as_dict` for JSON.

    Args:
        changes: of each metric; a reward and its terms go first.
        aligned: how many of them are the reward and its terms.
    """

    changes: tuple[Change, ...]
    aligned: int = 0

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Metric -> before, after, difference (with 95% intervals), p, wins, losses, ties, tie_share."""
        return {change.metric: change.as_dict() for change in self.changes}

    def render(self, title: str = "", before: str = "before", after: str = "after") -> Table:
        """Make a rich table; stars mark differences whose 95% interval leaves out zero."""
        from rich.markup import escape
        from rich.table import Table

        caption = f"95% bootstrap intervals over users; p: Wilcoxon signed-rank, paired, over users; {ALIKE}"
        table = Table(title=escape(title) or None, caption=caption)
        table.add_column("metric", no_wrap=True)
        for heading in (before, after, "difference", "p", "alike"):
            table.add_column(escape(heading), justify="right", overflow="fold")
        for place, change in enumerate(self.changes, 1):
            cells = (
                figure(change.before),
                figure(change.after),
                signed(change.paired.difference),
                p_text(change.paired.p),
                share(change.paired.tie_share),
            )
            table.add_row(label(change.metric), *cells, end_section=place == self.aligned)
        return table


def before_after(
    dataset: PreparedDataset,
    rows: Sequence[Row],
    before: Predictions,
    after: Predictions,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    *,
    reward: MetricExpression | None = None,
) -> BeforeAfter:
    """Compare two sets of lists for the same rows.

    Args:
        dataset: gives the catalogue.
        rows: [U] what both answer.
        before: U lists.
        after: U lists.
        metrics: names; by default ndcg and recall at 3 and 5, mgu and ild, as far as lists and genres allow.
        seed: of the bootstrap.
        reward: what was aligned, bound; it and each of its terms are measured too.
    """
    catalogue = dataset.catalogue
    length = min(before.items.shape[1], after.items.shape[1])
    if metrics is None:
        wide = [name for name in BEFORE_AFTER[:4] if int(name.partition("@")[2]) <= length]
        metrics = [
            *(wide or [f"ndcg@{length}", f"recall@{length}"]),
            *(BEFORE_AFTER[4:] if catalogue.genre_names else ()),
        ]
    aligned = {} if reward is None else {each.text: each for each in (reward, *reward.single_terms())}
    others = [name for name in metrics if parse_metric(name).text not in aligned]
    expressions = [*aligned.values(), *(parse_metrics(others, catalogue, length)[0] if others else ())]
    first, second = (per_user(lists, rows, expressions) for lists in (before, after))
    one, two = summarise(first, seed), summarise(second, seed)
    tests = paired_tests(first, second, seed)
    changes = (Change(name, one[name], two[name], tests[name]) for name in metric_names(first))
    return BeforeAfter(tuple(changes), aligned=len(aligned))


def paired_tests(before: pl.DataFrame, after: pl.DataFrame, seed: int = 0) -> dict[str, Paired]:
    """Test each metric of two per-user tables whose rows are the same, in the same order."""
    tests = {}
    for name in metric_names(before):
        defined = (before[name].is_not_null() & after[name].is_not_null()).to_numpy()
        one, two = (frame[name].to_numpy()[defined] for frame in (before, after))
        tests[name] = paired(one, two, seed, users=before["user_id"].to_numpy()[defined])
    return tests


def figure(interval: Interval) -> str:
    """Write a mean with its interval: `0.181 [0.165, 0.197]`."""
    if interval.mean is None:
        return "-"
    return f"{number(interval.mean)} [{number(interval.low)}, {number(interval.high)}]"


def signed(interval: Interval) -> str:
    """Write a difference with its interval and its sign; a star where the interval leaves out zero."""
    if interval.mean is None or interval.low is None or interval.high is None:
        return "-"
    star = "*" if interval.low > 0 or interval.high < 0 else ""
    return f"{number(interval.mean, '+')} [{number(interval.low, '+')}, {number(interval.high, '+')}]{star}"


def number(value: float | None, sign: str = "") -> str:
    """Write a figure with four digits after the point, or one where it is 10 or more."""
    if value is None:
        return "-"
    return f"{value:{sign}.4f}" if abs(value) < 10 else f"{value:{sign}.1f}"


def share(value: float | None) -> str:
    """Write a share in percent."""
    return "-" if value is None else f"{value:.0%}"


def p_text(p: float) -> str:
    """Write a p-value."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
