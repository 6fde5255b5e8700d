"""Programs to and from JSON, and from text. Nothing is ever evaluated: only known words, plain arguments.

It knows the vocabulary and no program: what a word means is the business of the file that enters it.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from typing import Any

from mmattn.attention.language.term import MAX_DEPTH, NullaryTerm, Term, registered_terms
from mmattn.errors import InputError, MissingDependency, did_you_mean

__all__ = ["FORMAT_VERSION", "from_json", "from_text", "missing_extension_message", "to_json"]

# Goes up when a program written today could be misread by older code.
FORMAT_VERSION = 1

_MAX_TEXT = 1_000_000


def to_json(program: Term) -> str:
    """The program as JSON text with a version.

    Args:
        program: a program or heads.
    """
    return json.dumps({"mmattn.attention": FORMAT_VERSION, "program": program.to_dict()}, ensure_ascii=False)


def from_json(text: str) -> Any:
    """See `Program.from_json`.

    Args:
        text: JSON as `to_json` writes it.

    Raises:
        InputError: not JSON, not a program, a newer version, or terms nested too deep.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise InputError(f"attention program: the JSON is nested deeper than {MAX_DEPTH} terms") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"attention program: not JSON: {error}") from None
    if not isinstance(document, dict) or not {"mmattn.attention", "program"} <= document.keys():
        raise InputError('attention program: expected JSON with "mmattn.attention" (a version) and "program"')
    version = document["mmattn.attention"]
    if type(version) is not int or version < 1:
        raise InputError(f"attention program: got version {version!r}, expected a whole number from 1")
    if version > FORMAT_VERSION:
        raise InputError(
            f"attention program: got version {version}, this mmattn reads up to {FORMAT_VERSION}; "
            "install a newer one: pip install --upgrade mmattn"
        )
    program = _parse_json_value(document["program"], 0)
    if not _is_program(program):
        raise InputError(f"attention program: got {program!r}, expected a Program or heads")
    return program


def _parse_json_value(value: Any, depth: int) -> Any:
    """One JSON value as an argument of a term."""
    if depth > 3 * MAX_DEPTH:  # a term takes up to three levels of JSON: itself, a list, a pair in it
        raise InputError(f"attention program: the JSON is nested deeper than {MAX_DEPTH} terms")
    if isinstance(value, list):
        return tuple(_parse_json_value(part, depth + 1) for part in value)
    if not isinstance(value, dict):
        return value
    if not isinstance(name := value.get("term"), str):
        raise InputError(
            f'attention program: got an object with {sorted(value)[:5]}, expected one with "term"'
        )
    if "extension" in value and name not in registered_terms():
        raise MissingDependency(missing_extension_message(name, str(value["extension"])))
    arguments = {
        key: _parse_json_value(part, depth + 1)
        for key, part in value.items()
        if key not in ("term", "extension")
    }
    return _build_term(_lookup_term(name), (), arguments)


def _lookup_term(name: str) -> type[Term]:
    words = registered_terms()
    if name not in words:
        raise InputError(
            f"attention program: the word {name!r} is not in the language.{did_you_mean(name, words)}"
        )
    return words[name]


def _is_program(value: Any) -> bool:
    return isinstance(value, Term) and value.kind == "program"


def _build_term(term: type[Term], positional: tuple[Any, ...], named: dict[str, Any]) -> Term:
    """Call a term's constructor, with an arity error that speaks of the word."""
    signature = inspect.signature(term)
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        expected = ", ".join(str(item).split(":")[0] for item in signature.parameters.values())
        raise InputError(f"{term.term_name}: {error}, expected {term.term_name}({expected})") from None
    return term(*positional, **named)


def missing_extension_message(name: str, install: str) -> str:
    """What to say where a stored program uses a word that is not registered here.

    Args:
        name: of the term.
        install: command that installs what registers it, or "".
    """
    how = f"install and import what registers it: {install}" if install else "import what registers it"
    return f"attention program: the word {name!r} is an extension that is not registered here; {how}"


def from_text(text: str) -> Any:
    """See `mmattn.attention.parse`.

    Args:
        text: a program as `str` writes it.

    Raises:
        InputError: not text, too long, or not a program; the message names the place.
    """
    if not isinstance(text, str):
        raise InputError(f"attention program: got {type(text).__name__}, expected text")
    if len(text) > _MAX_TEXT:
        raise InputError(f"attention program: got {len(text)} characters, expected at most {_MAX_TEXT}")
    return _Parser(text).program()


class _Parser:
    """Turns an expression's syntax tree into terms, and points at what it cannot take."""

    def __init__(self, text: str) -> None:
        # One line, so that a caret can point at any place of it; names hold no such characters.
        self.text = "".join(" " if letter.isspace() else letter for letter in text).strip()

    def program(self) -> Term:
        try:
            tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self._error_at(f"not an expression: {error.msg}", (error.offset or 1) - 1) from None
        except (RecursionError, MemoryError, ValueError):
            raise InputError(f"attention program: nested deeper than {MAX_DEPTH} terms") from None
        value: Term = self._parse_node(tree, 0)
        if not _is_program(value):
            raise self._error_at(f"got {value!r}, expected Program(...) or heads(...)", tree.col_offset)
        return value

    def _parse_node(self, node: ast.AST, depth: int) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise self._error_at(f"nested deeper than {MAX_DEPTH} terms", getattr(node, "col_offset", 0))
        match node:
            case ast.Call():
                return self._parse_call(node, depth)
            case ast.Name() | ast.Attribute():
                return self._parse_bare_term(node)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.RShift()):
                return self._parse_operator(node, depth)
            case ast.UnaryOp(op=ast.Invert()):
                mask = self._parse_node(node.operand, depth + 1)
                return self._try_build(node, lambda: ~mask, f"~: got {mask}, expected a mask")
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Constant(value=int() | float() | str() | None):
                return node.value
            case ast.List() | ast.Tuple():
                return tuple(self._parse_node(part, depth + 1) for part in node.elts)
            case ast.Dict():
                return tuple(
                    self._parse_dict_item(key, value, depth)
                    for key, value in zip(node.keys, node.values, strict=True)
                )
        raise self._error_at(
            f"a {type(node).__name__} is not in the language", getattr(node, "col_offset", 0)
        )

    def _parse_dict_item(self, key: ast.expr | None, value: ast.expr, depth: int) -> Any:
        if key is None:
            raise self._error_at("** is not in the language", value.col_offset)
        left, right = self._parse_node(key, depth + 1), self._parse_node(value, depth + 1)
        return (*left, right) if isinstance(left, tuple) else (left, right)

    def _parse_call(self, node: ast.Call, depth: int) -> Term:
        term = self._parse_term_class(node.func)
        if any(keyword.arg is None for keyword in node.keywords):
            raise self._error_at("** is not in the language", node.col_offset)
        positional = tuple(self._parse_node(argument, depth + 1) for argument in node.args)
        named = {str(keyword.arg): self._parse_node(keyword.value, depth + 1) for keyword in node.keywords}
        return self._try_build(node, lambda: _build_term(term, positional, named))

    def _parse_bare_term(self, node: ast.Name | ast.Attribute) -> Term:
        term = self._parse_term_class(node)
        if not issubclass(term, NullaryTerm):
            raise self._error_at(
                f"{term.term_name} is a word with arguments, expected {term.term_name}(...)", node.col_offset
            )
        return term()

    def _parse_term_class(self, node: ast.expr) -> type[Term]:
        match node:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="A"), attr=name):
                # `and`, `or`, `not` and `chain` are operators here, and cannot be called.
                words = {key: term for key, term in registered_terms().items() if key not in _OPERATORS}
                if name in words:
                    return words[name]
                raise self._error_at(
                    f"the word {name!r} is not in the language.{did_you_mean(name, words)}", node.col_offset
                )
        raise self._error_at("expected a word of the language", node.col_offset)

    def _parse_operator(self, node: ast.BinOp, depth: int) -> Term:
        # A long chain leans to the left: walk down its spine in a loop, not in a recursion.
        spine: list[ast.BinOp] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, (ast.BitAnd, ast.BitOr, ast.RShift)):
            spine.append(left)
            left = left.left
        value: Term = self._parse_node(left, depth + 1)
        for step in reversed(spine):
            value = self._apply_operator(step, value, self._parse_node(step.right, depth + 1))
        return value

    def _apply_operator(self, node: ast.BinOp, left: Any, right: Any) -> Term:
        match node.op:
            case ast.BitAnd():
                return self._try_build(
                    node, lambda: left & right, f"&: got {left} and {right}, expected two masks"
                )
            case ast.BitOr():
                return self._try_build(
                    node, lambda: left | right, f"|: got {left} and {right}, expected two masks"
                )
            case _:
                return self._try_build(
                    node, lambda: left >> right, f">>: got {left}, expected a score such as dot() before it"
                )

    def _try_build(self, node: ast.expr, build: Callable[[], Term], type_error_message: str = "") -> Term:
        """What `build` gives; `type_error_message` says what Python's own TypeError would not."""
        try:
            return build()
        except InputError as error:
            raise self._error_at(str(error), node.col_offset) from None
        except TypeError as error:
            raise self._error_at(type_error_message or str(error), node.col_offset) from None

    def _error_at(self, message: str, byte_column: int) -> InputError:
        """The error, pointing at a place of the expression."""
        if "\n" in message:  # the place inside was pointed at already
            return InputError(message)
        column = len(self.text.encode()[:byte_column].decode(errors="ignore"))
        start = max(0, column - 60)
        shown = self.text[start : column + 60]
        return InputError(f"{message}\n  {shown}\n  {' ' * (column - start)}^")


_OPERATORS = frozenset({"and", "or", "not", "chain"})
