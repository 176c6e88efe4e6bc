"""Which sums of a dbt project are sums over people, read from its compiled SQL.

Belongs here: tracing the argument of a `sum` back, step by step and model by model, to its name at its source.
Does not belong here: which models there are, and what is allowed (the tests say that).

People are distinct per date, page, value and vendor: a visitor of Monday and of Tuesday is one visitor, so that a sum
of visitors counts nobody knows what (MARTS §4.8; Pirsch's document says so of its totals).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sqlglot import exp, parse_one
from sqlglot.optimizer.scope import Scope, traverse_scope

__all__ = ["PeopleColumns"]

_PEOPLE: Final = re.compile(r"(^|_)(visitors?|people|users)(_|$)", re.IGNORECASE)
_NO_COUNT: Final = re.compile(
    r"(_ids?|_key|_codes?|_reason|_label|_source|_shares?|_rate|_at|_at_utc|_date)$|^(is|has|relative)_"
)
_PASSING: Final = (
    exp.Alias,
    exp.Cast,
    exp.Coalesce,
    exp.Case,
    exp.If,
    exp.Nullif,
    exp.Paren,
    exp.Round,
    exp.Max,
    exp.Min,
)
"""Through these a count stays a count of the same people; arithmetic makes something else of it."""

_PEOPLE_COUNTED: Final = "visitors"


@dataclass
class PeopleColumns:
    """Columns known to count people; grows as models are read in the order of their dependencies."""

    known: set[tuple[str, str]] = field(default_factory=set)

    def sums_in(self, sql: str) -> list[str]:
        """Every `sum(…)` of the statement, windows included, whose argument counts people at its source, as SQL."""
        return self._sums(traverse_scope(parse_one(sql, dialect="duckdb")))

    def read(self, relation: str, sql: str) -> list[str]:
        """As `sums_in`, and remember which columns of the relation count people, whatever they are called."""
        scopes = traverse_scope(parse_one(sql, dialect="duckdb"))
        for name in set(_outputs(scopes[-1])):
            if self._column_counts_people(name, scopes[-1], frozenset()):
                self.known.add((relation, name))
        return self._sums(scopes)

    def _sums(self, scopes: list[Scope]) -> list[str]:
        return [
            total.sql(dialect="duckdb")
            for scope in scopes
            for total in scope.find_all(exp.Sum)
            if any(self._counts_people(column, scope, frozenset()) for column in _taken(total))
        ]

    def _counts_people(self, column: exp.Column, scope: Scope, seen: frozenset[tuple[int, str]]) -> bool:
        if _is_people_name(column.name):
            return True
        named = scope.sources.get(column.table)
        for source in [named] if named is not None else scope.sources.values():
            if isinstance(source, Scope):
                if self._column_counts_people(column.name, source, seen):
                    return True
            elif isinstance(source, exp.Table) and (source.name, column.name) in self.known:
                return True
        return False

    def _column_counts_people(self, name: str, scope: Scope, seen: frozenset[tuple[int, str]]) -> bool:
        """Whether an output column of a step does. Each step is asked for a name once."""
        if (id(scope), name) in seen:
            return False
        if _is_people_name(name):
            return True
        seen |= {(id(scope), name)}
        if scope.set_operation_scopes:
            return any(self._column_counts_people(name, branch, seen) for branch in scope.set_operation_scopes)
        select = scope.expression
        if not isinstance(select, exp.Select):
            return False
        passed = [projection for projection in select.selects if projection.alias_or_name == name]
        if not passed and any(projection.is_star for projection in select.selects):
            return any(
                self._column_counts_people(name, source, seen)
                if isinstance(source, Scope)
                else (source.name, name) in self.known
                for source in scope.sources.values()
            )
        return any(
            _counts_distinct_visitors(projection)
            or any(self._counts_people(column, scope, seen) for column in _taken(projection, passing_only=True))
            for projection in passed
        )


def _is_people_name(name: str) -> bool:
    return bool(_PEOPLE.search(name)) and not _NO_COUNT.search(name)


def _outputs(scope: Scope) -> list[str]:
    """Names of the columns of the last step, looking through stars."""
    if scope.set_operation_scopes:
        return [name for branch in scope.set_operation_scopes for name in _outputs(branch)]
    if not isinstance(scope.expression, exp.Select):
        return []
    names = [p.alias_or_name for p in scope.expression.selects if not p.is_star]
    if any(p.is_star for p in scope.expression.selects):
        names += [name for source in scope.sources.values() if isinstance(source, Scope) for name in _outputs(source)]
    return names


def _counts_distinct_visitors(projection: exp.Expr) -> bool:
    return any(
        "visitor" in column.name
        for count in projection.find_all(exp.Count)
        if isinstance(count.this, exp.Distinct)
        for column in count.this.find_all(exp.Column)
    )


def _taken(expression: exp.Expr, *, passing_only: bool = False) -> Iterator[exp.Column]:
    """Columns whose value the expression takes: not those it only counts, compares or keys its windows by."""
    for column in expression.find_all(exp.Column):
        child: exp.Expr = column
        takes = True
        while takes and child is not expression and child.parent is not None:
            parent = child.parent
            if isinstance(parent, (exp.Count, exp.Predicate)):
                takes = False
            elif isinstance(parent, (exp.If, exp.Filter, exp.Window)):
                # The condition, the filter and the frame decide which rows, the rest is what is taken.
                takes = child is not parent.this if isinstance(parent, exp.If) else child is parent.this
            elif passing_only and not isinstance(parent, (*_PASSING, exp.Filter)):
                takes = False
            child = parent
        if takes:
            yield column
