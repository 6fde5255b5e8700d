"""Programs to and from JSON, and from text. Nothing is ever evaluated: only known words, plain arguments.

It knows the vocabulary and no program: what a word means is the business of the file that enters it.
"""

from __future__ import annotations

import ast
import inspect
import json
from typing import Any

from mmattn.attention.language.term import MAX_DEPTH, Constant, Term, vocabulary
from mmattn.errors import InputError, MissingDependency, nearest

__all__ = ["FORMAT_VERSION", "from_json", "from_text", "missing", "to_json"]

# Goes up when a program written today could be misread by older code.
FORMAT_VERSION = 1

_MAX_TEXT = 1_000_000


def to_json(program: Term) -> str:
    """The program as JSON text with a version."""
    return json.dumps({"mmattn.attention": FORMAT_VERSION, "program": program.to_dict()}, ensure_ascii=False)


def from_json(text: str) -> Any:
    """See `Program.from_json`."""
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
    program = _value(document["program"], 0)
    if not _is_program(program):
        raise InputError(f"attention program: got {program!r}, expected a Program or heads")
    return program


def _value(value: Any, depth: int) -> Any:
    """One JSON value as an argument of a term."""
    if depth > 3 * MAX_DEPTH:  # a term takes up to three levels of JSON: itself, a list, a pair in it
        raise InputError(f"attention program: the JSON is nested deeper than {MAX_DEPTH} terms")
    if isinstance(value, list):
        return tuple(_value(part, depth + 1) for part in value)
    if not isinstance(value, dict):
        return value
    if not isinstance(name := value.get("term"), str):
        raise InputError(
            f'attention program: got an object with {sorted(value)[:5]}, expected one with "term"'
        )
    if "extension" in value and name not in vocabulary():
        raise MissingDependency(missing(name, str(value["extension"])))
    arguments = {
        key: _value(part, depth + 1) for key, part in value.items() if key not in ("term", "extension")
    }
    return _build(_lookup(name), (), arguments)


def _lookup(name: str) -> type[Term]:
    words = vocabulary()
    if name not in words:
        raise InputError(
            f"attention program: the word {name!r} is not in the language.{nearest(name, words)}"
        )
    return words[name]


def _is_program(value: Any) -> bool:
    return isinstance(value, Term) and value.kind == "program"


def _build(term: type[Term], positional: tuple[Any, ...], named: dict[str, Any]) -> Term:
    """Call a term's constructor, with an arity error that speaks of the word."""
    signature = inspect.signature(term)
    try:
        signature.bind(*positional, **named)
    except TypeError as error:
        expected = ", ".join(str(item).split(":")[0] for item in signature.parameters.values())
        raise InputError(f"{term.word}: {error}, expected {term.word}({expected})") from None
    return term(*positional, **named)


def missing(name: str, install: str) -> str:
    """What to say where a stored program uses a word that is not registered here."""
    how = f"install and import what registers it: {install}" if install else "import what registers it"
    return f"attention program: the word {name!r} is an extension that is not registered here; {how}"


def from_text(text: str) -> Any:
    """See `mmattn.attention.parse`."""
    if not isinstance(text, str):
        raise InputError(f"attention program: got {type(text).__name__}, expected text")
    if len(text) > _MAX_TEXT:
        raise InputError(f"attention program: got {len(text)} characters, expected at most {_MAX_TEXT}")
    return _Reader(text).program()


class _Reader:
    """Turns an expression's syntax tree into terms, and points at what it cannot take."""

    def __init__(self, text: str) -> None:
        # One line, so that a caret can point at any place of it; names hold no such characters.
        self.text = "".join(" " if letter.isspace() else letter for letter in text).strip()

    def program(self) -> Term:
        try:
            tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            raise self._wrong(f"not an expression: {error.msg}", (error.offset or 1) - 1) from None
        except (RecursionError, MemoryError, ValueError):
            raise InputError(f"attention program: nested deeper than {MAX_DEPTH} terms") from None
        value = self._read(tree, 0)
        if not _is_program(value):
            raise self._wrong(f"got {value!r}, expected Program(...) or heads(...)", tree.col_offset)
        return value

    def _read(self, node: ast.AST, depth: int) -> Any:
        if depth > 4 * MAX_DEPTH:
            raise self._wrong(f"nested deeper than {MAX_DEPTH} terms", getattr(node, "col_offset", 0))
        match node:
            case ast.Call():
                return self._call(node, depth)
            case ast.Name() | ast.Attribute():
                return self._bare(node)
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.RShift()):
                return self._operator(node, depth)
            case ast.UnaryOp(op=ast.Invert()):
                mask = self._read(node.operand, depth + 1)
                return self._try(node, lambda: ~mask, f"~: got {mask}, expected a mask")
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Constant(value=int() | float() | str() | None):
                return node.value
            case ast.List() | ast.Tuple():
                return tuple(self._read(part, depth + 1) for part in node.elts)
            case ast.Dict():
                return tuple(
                    self._item(key, value, depth) for key, value in zip(node.keys, node.values, strict=True)
                )
        raise self._wrong(f"a {type(node).__name__} is not in the language", getattr(node, "col_offset", 0))

    def _item(self, key: ast.expr | None, value: ast.expr, depth: int) -> Any:
        if key is None:
            raise self._wrong("** is not in the language", value.col_offset)
        left, right = self._read(key, depth + 1), self._read(value, depth + 1)
        return (*left, right) if isinstance(left, tuple) else (left, right)

    def _call(self, node: ast.Call, depth: int) -> Term:
        term = self._word(node.func)
        if any(keyword.arg is None for keyword in node.keywords):
            raise self._wrong("** is not in the language", node.col_offset)
        positional = tuple(self._read(argument, depth + 1) for argument in node.args)
        named = {str(keyword.arg): self._read(keyword.value, depth + 1) for keyword in node.keywords}
        return self._try(node, lambda: _build(term, positional, named))

    def _bare(self, node: ast.Name | ast.Attribute) -> Term:
        term = self._word(node)
        if not issubclass(term, Constant):
            raise self._wrong(
                f"{term.word} is a word with arguments, expected {term.word}(...)", node.col_offset
            )
        return term()

    def _word(self, node: ast.expr) -> type[Term]:
        match node:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="A"), attr=name):
                # `and`, `or`, `not` and `chain` are operators here, and cannot be called.
                words = {key: term for key, term in vocabulary().items() if key not in _OPERATORS}
                if name in words:
                    return words[name]
                raise self._wrong(
                    f"the word {name!r} is not in the language.{nearest(name, words)}", node.col_offset
                )
        raise self._wrong("expected a word of the language", node.col_offset)

    def _operator(self, node: ast.BinOp, depth: int) -> Term:
        # A long chain leans to the left: walk down its spine in a loop, not in a recursion.
        spine: list[ast.BinOp] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp) and isinstance(left.op, (ast.BitAnd, ast.BitOr, ast.RShift)):
            spine.append(left)
            left = left.left
        value = self._read(left, depth + 1)
        for step in reversed(spine):
            value = self._apply(step, value, self._read(step.right, depth + 1))
        return value

    def _apply(self, node: ast.BinOp, left: Any, right: Any) -> Term:
        match node.op:
            case ast.BitAnd():
                return self._try(node, lambda: left & right, f"&: got {left} and {right}, expected two masks")
            case ast.BitOr():
                return self._try(node, lambda: left | right, f"|: got {left} and {right}, expected two masks")
            case _:
                return self._try(
                    node, lambda: left >> right, f">>: got {left}, expected a score such as dot() before it"
                )

    def _try(self, node: ast.expr, build: Any, otherwise: str = "") -> Any:
        """What `build` gives; `otherwise` says what Python's own TypeError would not."""
        try:
            return build()
        except InputError as error:
            raise self._wrong(str(error), node.col_offset) from None
        except TypeError as error:
            raise self._wrong(otherwise or str(error), node.col_offset) from None

    def _wrong(self, message: str, byte_column: int) -> InputError:
        """The error, pointing at a place of the expression."""
        if "\n" in message:  # the place inside was pointed at already
            return InputError(message)
        column = len(self.text.encode()[:byte_column].decode(errors="ignore"))
        start = max(0, column - 60)
        shown = self.text[start : column + 60]
        return InputError(f"{message}\n  {shown}\n  {' ' * (column - start)}^")


_OPERATORS = frozenset({"and", "or", "not", "chain"})
