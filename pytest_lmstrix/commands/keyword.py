"""Keyword expressions, as of pytest's `-k`. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable

_TOKEN = re.compile(r"[()]|[^\s()]+")
_KEPT = ("(", ")", "and", "or", "not")
_ALLOWED = (ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Name, ast.Load)


def matcher(expression: str) -> Callable[[Iterable[str]], bool]:
    """Return a function that matches names: each word as a substring, case-insensitive.

    Operators are `and`, `or`, `not` and parentheses; an empty expression matches all.

    Raises:
        ValueError: `expression` is not valid.
    """
    if not expression.strip():
        return lambda names: True
    words: list[str] = []

    def token(match: re.Match[str]) -> str:
        if match[0] in _KEPT:
            return match[0]
        words.append(match[0].lower())
        return f"_{len(words) - 1}"

    source = _TOKEN.sub(token, " ".join(expression.split()))
    try:
        tree = ast.parse(source, mode="eval").body
        if not all(isinstance(node, _ALLOWED) for node in ast.walk(tree)):
            raise SyntaxError
    except (SyntaxError, RecursionError, MemoryError):
        text = f"'{expression}' is not a valid expression: use words, and, or, not and parentheses"
        raise ValueError(text) from None

    def holds(node: ast.expr, names: list[str]) -> bool:
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(holds(part, names) for part in node.values)
            case ast.BoolOp():
                return any(holds(part, names) for part in node.values)
            case ast.UnaryOp():
                return not holds(node.operand, names)
            case ast.Name(id=name):
                return any(words[int(name[1:])] in each for each in names)
        raise AssertionError("unreachable because of _ALLOWED")

    return lambda names: holds(tree, [name.lower() for name in names])
