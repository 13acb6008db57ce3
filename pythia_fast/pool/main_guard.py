"""What a script makes under ``if __name__ == "__main__":``, which no import of it runs."""

from __future__ import annotations

import ast
import tokenize


def made_under_guard(path: str, name: str) -> bool:
    """Whether a file binds ``name``, or registers handlers with it, under the guard. False for one that cannot be
    read."""
    try:
        with tokenize.open(path) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return False
    guarded = [node for node in tree.body if isinstance(node, ast.If) and _is_guard(node.test)]
    return any(_makes(node, name) for guard in guarded for body in guard.body for node in ast.walk(body))


def _is_guard(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
        return False
    return {"__name__", "__main__"} == {
        side.id if isinstance(side, ast.Name) else side.value if isinstance(side, ast.Constant) else None
        for side in (test.left, *test.comparators)
    }


def _makes(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        return node.id == name and isinstance(node.ctx, ast.Store)
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "batch_handler"
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    )
