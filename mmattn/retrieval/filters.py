"""Filter expressions (`where=`) over metadata columns; they are parsed to a syntax tree and never evaluated.

    genre == 'Comedy' and year > 1990
    'Drama' in genres and not (year in [1997, 1998] or title is None)

Names are columns. Allowed are comparisons (also chained), `in`, `is None`, `and`, `or`, `not` and constants.
Anything else (a call, an attribute, arithmetic) raises an error that gives its column. Comparisons with a
missing value are false; `is None` selects missing values.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mmattn.errors import InputError, did_you_mean

__all__ = ["filter_mask"]

_MAX_LENGTH = 10_000
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def filter_mask(where: str, table: pd.DataFrame) -> np.ndarray:
    """Evaluate a filter expression for each row of a table.

    Args:
        where: the expression, at most 10,000 characters.
        table: metadata, N rows.

    Returns:
        [N] boolean mask of the rows that meet the condition.

    Raises:
        InputError: the expression does not parse, names an unknown column, compares incompatible types, or
            uses syntax beyond the filter language.

    Example:
        >>> films = pd.DataFrame({"genre": ["Comedy", "Drama", "Comedy"], "year": [1995, 1999, 1980]})
        >>> filter_mask("genre == 'Comedy' and year > 1990", films).tolist()
        [True, False, False]
        >>> filter_mask("__import__('os')", films)
        Traceback (most recent call last):
        mmattn.errors.InputError: filter "__import__('os')": a call at column 0 is not allowed, expected ...
    """
    if not isinstance(where, str) or len(where) > _MAX_LENGTH:
        raise InputError(
            f"filter: got {type(where).__name__}, expected text of at most {_MAX_LENGTH} characters"
        )
    reader = _FilterEvaluator(where.strip(), table)
    try:
        tree = ast.parse(reader.where, mode="eval")
        return reader.condition(tree.body)
    except SyntaxError as error:
        raise reader.problem(f"does not parse ({error.msg} at column {(error.offset or 1) - 1})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise reader.problem("does not parse (nested too deeply, or an invalid character)") from error


class _FilterEvaluator:
    def __init__(self, where: str, table: pd.DataFrame):
        self.where = where
        self.table = table

    def problem(self, reason: str) -> InputError:
        shown = self.where if len(self.where) <= 80 else self.where[:77] + "..."
        return InputError(f'filter "{shown}": {reason}')

    def not_allowed(self, node: ast.AST) -> InputError:
        kind = {"Call": "call", "Attribute": "attribute", "BinOp": "computation", "Subscript": "subscript"}
        name = kind.get(type(node).__name__, type(node).__name__.lower())
        article = "an" if name[0] in "aeiou" else "a"
        return self.problem(
            f"{article} {name} at column {getattr(node, 'col_offset', 0)} is not allowed, "
            "expected comparisons of columns with constants, joined by and, or, not"
        )

    def condition(self, node: ast.AST) -> np.ndarray:
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            joined: np.ndarray = join.reduce(parts)
            return joined
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            links = zip(sides, node.ops, sides[1:], strict=False)
            holds: np.ndarray = np.logical_and.reduce([self.comparison(*link) for link in links])
            return holds
        if isinstance(node, ast.Name):
            column = self.column(node)
            if not pd.api.types.is_bool_dtype(column.dtype):
                raise self.problem(f"column {node.id!r} holds {column.dtype}, expected a comparison with it")
            return column.fillna(False).to_numpy(dtype=bool)
        raise self.not_allowed(node)

    def comparison(self, left: ast.AST, link: ast.cmpop, right: ast.AST) -> np.ndarray:
        if isinstance(link, (ast.In, ast.NotIn)):
            matches, has_value = self.membership(left, right)
            return matches if isinstance(link, ast.In) else ~matches & has_value
        if isinstance(link, (ast.Is, ast.IsNot)):
            if not (isinstance(left, ast.Name) and isinstance(right, ast.Constant) and right.value is None):
                raise self.problem("`is` is for `column is None` only, expected == for values")
            missing = self.column(left).isna().to_numpy()
            return missing if isinstance(link, ast.Is) else ~missing
        values, has_value = [], np.ones(len(self.table), dtype=bool)
        for side in (left, right):
            if isinstance(side, ast.Name):
                column = self.column(side)
                has_value &= column.notna().to_numpy()
                values.append(column)
            else:
                values.append(self.constant(side))
        if not any(isinstance(value, pd.Series) for value in values):
            raise self.problem("compares two constants, expected a column on one side")
        if any(value is None for value in values):
            raise self.problem("compares with None, expected `is None` or `is not None`")
        try:
            matches = _COMPARISONS[type(link)](*values)
        except (TypeError, ValueError) as error:
            shown = " and ".join(
                f"column {value.name!r} ({value.dtype})" if isinstance(value, pd.Series) else repr(value)
                for value in values
            )
            raise self.problem(f"{shown} cannot be compared") from error
        result: np.ndarray = pd.Series(matches).fillna(False).to_numpy(dtype=bool) & has_value
        return result

    def membership(self, left: ast.AST, right: ast.AST) -> tuple[np.ndarray, np.ndarray]:
        """Mask of the rows that contain the value, and mask of the rows that are not missing."""
        if isinstance(left, ast.Name) and isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            column = self.column(left)
            chosen = [self.constant(each) for each in right.elts]
            return column.isin(chosen).to_numpy() & column.notna().to_numpy(), column.notna().to_numpy()
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            column, wanted = self.column(right), self.constant(left)
            has_value = column.notna().to_numpy()
            try:
                matches = [has and wanted in cell for cell, has in zip(column, has_value, strict=True)]
            except TypeError as error:
                raise self.problem(
                    f"column {right.id!r} holds {column.dtype}, expected lists or text"
                ) from error
            return np.array(matches, dtype=bool), has_value
        raise self.problem("`in` is for `column in [...]` or `'value' in column`")

    def column(self, node: ast.Name) -> pd.Series:
        if node.id not in self.table.columns:
            known = [str(name) for name in self.table.columns]
            raise self.problem(f"no column {node.id!r}.{did_you_mean(node.id, known)}")
        return self.table[node.id]

    def constant(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            value = self.constant(node.operand)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
        raise self.not_allowed(node)
