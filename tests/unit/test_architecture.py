"""The house is as ARCHITECTURE.md draws it, and every file that a page names is there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("index", "training", "serving", "clients")
TOP = (*ROOMS, "tests", "benchmarks", "docs", "requirements")
PAGES = sorted(
    path for folder in (".", "docs", "benchmarks", "benchmarks/results") for path in (ROOT / folder).glob("*.md")
)
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", ARCHITECTURE, flags=re.MULTILINE | re.DOTALL)
FULL = 10  # modules of a folder besides __init__.py
FIELDS = {"index.version"}  # of an answer, no module


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of ours below a folder, relative to the repository, without what Python and people leave lying."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
            yield path.relative_to(ROOT)


def drawn_tree() -> list[tuple[str, str]]:
    """(path, purpose) of every line of the rooms' trees; a folder's path ends with a slash."""
    lines: list[tuple[str, str]] = []
    for block in BLOCKS:
        if not re.match(rf"({'|'.join(ROOMS)})/", block):
            continue
        above: list[str] = []
        for line in block.splitlines():
            drawn = re.fullmatch(r"((?:  )*)([\w.]+/?)\s+(\S.*)", line)
            assert drawn, f"ARCHITECTURE.md: not `name  purpose`, indented by twos: {line!r}"
            depth = len(drawn[1]) // 2
            assert depth <= len(above), f"ARCHITECTURE.md: nothing stands above {line!r}"
            above[depth:] = [drawn[2]] if drawn[2].endswith("/") else []
            lines.append(("".join(above) if drawn[2].endswith("/") else "".join([*above, drawn[2]]), drawn[3]))
    return lines


def line_for(path: Path) -> str:
    """A first draft of a file's line."""
    text = (ROOT / path).read_text(encoding="utf-8")
    said = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0] if path.suffix == ".py" else ""
    return f"under {path.parent}/: `{'  ' * (len(path.parts) - 1)}{path.name}  {said or 'its purpose'}`"


def test_the_tree_names_every_file_once_and_no_other() -> None:
    drawn = [path for path, _ in drawn_tree()]
    files = {path.as_posix() for room in ROOMS for path in files_below(ROOT / room) if path.name != "__init__.py"}
    folders = {f"{parent.as_posix()}/" for name in files for parent in Path(name).parents if parent.name}
    wrong = [f"add {line_for(Path(path))}" for path in sorted(files - set(drawn))]
    wrong += [f"add the folder {path}" for path in sorted(folders - set(drawn))]
    wrong += [f"remove {path}: it is not there" for path in sorted(set(drawn) - files - folders)]
    wrong += [f"remove {path}: it is named twice" for path in sorted({path for path in drawn if drawn.count(path) > 1})]
    assert not wrong, "ARCHITECTURE.md, trees of the rooms:\n" + "\n".join(wrong)


def drawn_layers() -> dict[str, str]:
    """The line of each room: layers separated by «>», highest first; between commas are independent parts of one."""
    [block] = [block for block in BLOCKS if " > " in block]
    return dict(line.split(None, 1) for line in block.splitlines())


def test_the_layers_are_those_of_the_import_contracts() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    proven = {
        layers[0].split(".")[0]: " > ".join(
            re.sub(r"\w+\.(\w+)", r"\1", layer).replace(" | ", ", ") for layer in layers
        )
        for layers in (contract["layers"] for contract in contracts if contract["type"] == "layers")
        if "." in layers[0]
    }
    wrong = [f"{room}  {layers}" for room, layers in proven.items() if drawn_layers().get(room) != layers]
    assert not wrong, "ARCHITECTURE.md, layers: pyproject.toml's contracts say\n" + "\n".join(wrong)
    assert set(drawn_layers()) == set(proven) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_and_module_of_a_room_is_in_a_layer(room: str) -> None:
    """What no layer names, no contract holds."""
    inside = {path.relative_to(room).parts[0] for path in files_below(ROOT / room) if path.suffix == ".py"}
    assert set(re.split(r" > |, ", drawn_layers()[room])) == {name.removesuffix(".py") for name in inside} - {
        "__init__"
    }


@pytest.mark.parametrize("room", ROOMS)
def test_no_folder_is_overfull(room: str) -> None:
    """Past ten modules a folder holds a second department; `clients/commands` has one per verb."""
    modules = [path for path in files_below(ROOT / room) if path.suffix == ".py" and path.name != "__init__.py"]
    counts = {
        folder.as_posix(): [path.parent for path in modules].count(folder) for folder in {p.parent for p in modules}
    }
    counts.pop("clients/commands", None)
    assert {folder: count for folder, count in counts.items() if count > FULL} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_says_what_it_is_for(room: str) -> None:
    for folder in {path.parent for path in files_below(ROOT / room) if path.suffix == ".py"}:
        init = ROOT / folder / "__init__.py"
        assert init.is_file(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), (
            f"{init} does not say what the folder is for"
        )


def defines(tree: ast.Module | ast.ClassDef, name: str) -> ast.AST | None:
    """The definition of a name in a module or a class, or None."""
    for node in tree.body:
        targets = [getattr(node, "name", None), getattr(getattr(node, "target", None), "id", None)]
        targets += [getattr(target, "id", None) for target in getattr(node, "targets", [])]
        if name in targets:
            return node
    return None


def has_symbol(path: Path, symbol: str) -> bool:
    """Whether a module defines `name`, `Class.name`, or `NAME["key"]`; of a key, only its NAME is looked for."""
    found: ast.AST | None = ast.parse(path.read_text(encoding="utf-8"))
    for name in re.sub(r"\[.*", "", symbol).split("."):
        found = defines(found, name) if isinstance(found, ast.Module | ast.ClassDef) else None
    return found is not None


def find_module(dotted: str) -> bool:
    """Whether `room.folder.module` or `room.folder.module.Symbol` exists."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:cut])
        module = base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"
        if module.is_file():
            return cut == len(parts) or has_symbol(module, ".".join(parts[cut:]))
    return False


def wrong_names(text: str) -> list[str]:
    """The files, modules and symbols that a text names and that are not there.

    Read are paths of Python files anywhere, other paths from a top folder on, and back-ticked dotted names. A bare or
    partial path may lie in any folder.
    """
    everything = {path.as_posix() for top in TOP for path in files_below(ROOT / top)}
    wrong = []
    named = re.findall(r"(?<![\w./<>*-])((?:[\w-]+/)*\w+\.py)\b(?:: ([\w.]+))?", text)
    named += [(path, "") for path in re.findall(rf"(?<![\w./-])((?:{'|'.join(TOP)})/[\w./-]*\.(?!py\b)\w+)", text)]
    for path, symbol in named:
        places = [ROOT / place for place in everything if f"/{place}".endswith(f"/{path}")]
        if not places or (symbol and not any(has_symbol(place, symbol) for place in places)):
            wrong.append(f"{path}: {symbol}" if symbol else path)
    dotted = re.findall(rf"`((?:{'|'.join((*ROOMS, 'benchmarks', 'tests'))})(?:\.\w+)+)`", text)
    return wrong + [
        name for name in dotted if name not in FIELDS and not name.endswith((".py", ".md")) and not find_module(name)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    assert wrong_names(page.read_text(encoding="utf-8")) == []


def test_what_the_code_says_of_other_modules_is_there() -> None:
    wrong = {}
    for path in (path for top in TOP for path in files_below(ROOT / top) if path.suffix == ".py"):
        text = (ROOT / path).read_text(encoding="utf-8")
        if path.name != Path(__file__).name and (names := wrong_names(" ".join(re.findall(r"`[^`\n]+`", text)))):
            wrong[path.as_posix()] = names
    assert wrong == {}


def test_a_name_that_is_not_there_is_found() -> None:
    there = "`commands/score.py`, `limits.py: MAX_ID_CHARACTERS`, `training.prompt.Prompt`, benchmarks/README.md "
    missing = ["index/nowhere.py", "limits.py: NOTHING", "benchmarks/results/none.md", "training.prompt.Nobody"]
    assert wrong_names(there + " ".join(f"`{name}`" for name in missing)) == missing
