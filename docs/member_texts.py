"""The texts under the members of an enum: they are not kept at run time, so the source is read."""

from __future__ import annotations

import ast
import inspect
import textwrap
from enum import Enum


def member_texts(enum: type[Enum]) -> dict[str, str]:
    """Each member's name, with the text under it, in one line; "" where there is none."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(enum))).body[0]
    assert isinstance(tree, ast.ClassDef)
    texts: dict[str, str] = {}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            texts[node.targets[0].id] = _text(following)
    return texts


def _text(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return ""
