"""Names say what a value is: words that could stand for anything are few."""

import ast
from pathlib import Path

import caloforge

FILLERS = {"one", "found", "kept", "wanted", "held", "made", "given", "mine"}


def bound(tree):
    """Returns the names that a module binds."""
    return [
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]


def test_fewer_than_one_name_in_two_hundred_is_a_filler():
    files = sorted(Path(caloforge.__file__).parent.rglob("*.py"))
    names = {path: bound(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    fillers = {
        path.name: count for path, words in names.items() if (count := sum(word in FILLERS for word in words))
    }
    total = sum(map(len, names.values()))
    assert total > 5000
    assert sum(fillers.values()) < 0.005 * total, fillers
