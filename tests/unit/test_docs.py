"""The operating docs name everything that the code offers, with the code's values, and nothing that it does not."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from clients.cli import app
from index.catalog.changes import parse_change
from index.tables import layouts
from index.tables.layouts import INTERACTION_LAYOUTS, ITEM_LAYOUTS, Layout, find_layout, open_source
from serving import schema
from serving.http.problems import BY_EXCEPTION, BY_STATUS, INTERNAL, ProblemKind
from serving.http.routes import router
from serving.settings import PREFIX, ServingSettings
from training.recipes.method import Method
from training.recipes.methods import METHODS
from training.settings import spell

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
TEXT = "\n".join(PAGES.values())

COMMANDS: list[str] = list(get_command(app).commands)
INDEX_COMMANDS = [name for name in get_command(app).commands["index"].commands if name != "build"]  # it is the default
KINDS = [*BY_EXCEPTION.values(), *BY_STATUS.values(), INTERNAL]
REQUESTS = (schema.RecommendRequest, schema.Filters, schema.ItemBody)
ENUMS = (
    schema.ArmReason, schema.Degraded, schema.HistorySource, schema.Source, schema.EventType, schema.ItemState,
)  # fmt: skip
LAYOUTS = [*ITEM_LAYOUTS, *INTERACTION_LAYOUTS]


def rows_of(page: str) -> list[list[str]]:
    """Every table row of a page, as cells without white space and back-ticks around them."""
    lines = [line for line in PAGES[page].splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def row_of(page: str, name: str, *, column: int = 0) -> list[str]:
    """The one row that names this in its column."""
    [row] = [row for row in rows_of(page) if row[column] == name]
    return row


def blocks_of(page: str) -> list[tuple[str, str]]:
    """(second word of the fence, text) of every fenced block that has one: an example file, or a model's name."""
    return re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL)


def as_variable(value: Any) -> str:
    """A setting's default as the tables and an environment variable spell it."""
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if value is None:
        return "empty"
    return (str(value).lower() if isinstance(value, bool) else str(value)) or "empty"


@pytest.mark.parametrize(
    ("method", "name"), [(method, setting.name) for method in METHODS for setting in fields(method.settings)]
)
def test_every_setting_of_every_method_is_listed_with_its_defaults(method: Method, name: str) -> None:
    _, tiny, paper, meaning = row_of("training.md", name)
    presets = method.settings.presets()
    assert [tiny, paper] == [spell(getattr(presets[preset], name)) for preset in ("tiny", "paper")]
    assert meaning


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_has_its_row(method: Method) -> None:
    assert method.summary in " ".join(row_of("training.md", method.name))


@pytest.mark.parametrize("name", ServingSettings.model_fields)
def test_every_serving_setting_is_listed_with_its_default(name: str) -> None:
    _, default, meaning = row_of("serving.md", PREFIX + name.upper())
    assert default == as_variable(ServingSettings.model_fields[name].default)
    assert meaning


def test_no_serving_setting_is_listed_that_does_not_exist() -> None:
    known = {PREFIX + name.upper() for name in ServingSettings.model_fields}
    of_compose = set(re.findall(r"\$\{(SOFTREC_\w+)", (ROOT / "compose.yaml").read_text(encoding="utf-8")))
    assert set(re.findall(r"SOFTREC_[A-Z]\w+", TEXT)) <= known | of_compose


@pytest.mark.parametrize("command", [*COMMANDS, *(f"index {name}" for name in INDEX_COMMANDS)])
def test_every_command_is_mentioned(command: str) -> None:
    assert re.search(rf"softrec {command}\b", TEXT)


def test_no_command_is_mentioned_that_does_not_exist() -> None:
    code = re.findall(r"^```\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL) + re.findall(r"`([^`\n]+)`", TEXT)
    mentioned = {command for text in code for command in re.findall(r"^softrec ([a-z]+)", text, flags=re.MULTILINE)}
    assert mentioned <= set(COMMANDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_problem_code_is_listed(kind: ProblemKind) -> None:
    status, _, retryable, when = row_of("serving.md", kind.code, column=1)
    assert (status, retryable) == (str(kind.status), "yes" if kind.retryable else "no")
    assert when


@pytest.mark.parametrize(
    ("method", "path"), [(method, route.path) for route in router.routes for method in sorted(route.methods)]
)
def test_every_route_is_mentioned(method: str, path: str) -> None:
    assert re.search(rf"\b{method} {re.escape(path.replace(':path', ''))}(?!\w)", PAGES["serving.md"])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_is_listed_with_its_columns(layout: Layout) -> None:
    _, required, optional = row_of("data.md", layout.name)
    if required != "by position":  # the raw file whose columns have no names
        assert re.findall(r"\w+", required) == list(layout.picked[: layout.required])
        assert re.findall(r"\w+", optional) == list(layout.picked[layout.required :])


def test_every_layout_and_every_raw_file_has_an_example_that_is_read_as_it(tmp_path: Path) -> None:
    seen: set[str] = set()
    for name, text in blocks_of("data.md"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        source = open_source(tmp_path / name)
        fitting = [layout for layout in LAYOUTS if not layout.missing(source.columns)]
        [layout] = [
            find_layout(tmp_path / name, source.columns, group)
            for group in (ITEM_LAYOUTS, INTERACTION_LAYOUTS)
            if any(layout in fitting for layout in group)
        ]
        rows = list(source.rows(layout.picked))
        assert rows
        assert not any(row.reason for row in rows)
        seen |= {layout.name, name}
    assert seen >= {layout.name for layout in LAYOUTS} | set(layouts._SEPARATED)


def test_every_answer_that_is_shown_has_the_whole_shape() -> None:
    """Read and written again it is the same: no field is missing, none is too many."""
    shown = blocks_of("serving.md")
    for name, text in shown:
        content = json.loads(text)
        assert getattr(schema, name).model_validate(content).model_dump(mode="json") == content
    assert {name for name, _ in shown} == {
        "RecommendResponse", "EventsResponse", "ItemResponse", "ReadyResponse", "Problem",
    }  # fmt: skip


def test_every_curl_call_sends_a_valid_request() -> None:
    models = {"/recommend": schema.RecommendRequest, "/events": schema.EventsRequest}
    calls = re.findall(r"^curl -s localhost:8000(\S+)[^']*'[^']*'[^']*-d '([^']*)'", PAGES["serving.md"], re.MULTILINE)
    assert {path for path, _ in calls} == set(models)
    for path, body in calls:
        models[path].model_validate_json(body)


@pytest.mark.parametrize(
    "name", [*schema.RecommendRequest.model_fields, *schema.Filters.model_fields, *schema.ItemBody.model_fields]
)
def test_every_field_of_a_request_is_listed(name: str) -> None:
    assert re.search(rf"`(filters\.)?{name}[`.]", PAGES["serving.md"])


@pytest.mark.parametrize(
    "value",
    [
        value
        for values in (
            schema.ArmReason,
            schema.Degraded,
            schema.HistorySource,
            schema.Source,
            schema.EventType,
            schema.ItemState,
        )
        for value in values
    ],
    ids=lambda value: f"{type(value).__name__}.{value.value}",
)
def test_every_value_of_an_answer_is_listed(value: str) -> None:
    assert f"`{value}`" in PAGES["serving.md"]


def test_the_example_of_changes_can_be_read() -> None:
    [text] = [text for name, text in blocks_of("index.md") if name == "changes.jsonl"]
    assert [parse_change(json.loads(line)).op for line in text.splitlines()] == ["put", "patch", "remove"]


def test_links_between_pages_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            name, _, heading = target.partition("#")
            spelled = f"\n## {heading.replace('-', ' ')}\n"
            assert spelled in PAGES[name or page].lower() if heading else name in PAGES
    assert set(re.findall(r"\]\(([^)]+)\)", PAGES["README.md"])) == set(PAGES) - {"README.md"}
