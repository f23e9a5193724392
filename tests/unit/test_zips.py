"""No part of the product pairs values and drops those without a partner: a reader would lose rows and say nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["index", "training", "serving", "clients"])
def test_every_zip_is_strict(folder):
    """ruff asks for a word on it (B905); here the word must be strict=True. Neighbours are itertools.pairwise."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    lenient = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"
        if [ast.unparse(word.value) for word in node.keywords if word.arg == "strict"] != ["True"]
    ]
    assert lenient == []
