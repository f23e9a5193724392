"""`softrec index` and its commands, on a shop of eight items and an encoder that counts letters."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from clients.cli import app
from clients.commands.index import open_index
from index.catalog.catalog import read_catalog, write_catalog
from index.errors import MismatchError
from index.live.live import LiveIndex
from index.live.snapshot import load_active
from index.live.versions import list_versions
from index.workspace import Workspace
from tests.tiny_shop import make_tiny_shop, tiny_catalog
from tests.unit.index.live_shop import journal_of
from tests.unit.serving.conftest import LetterEncoder
from training.progress import Silence


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for module in ("index", "index_doctor"):
        monkeypatch.setattr(f"clients.commands.{module}.open_encoder", lambda name, *, base_dir: LetterEncoder())
    monkeypatch.setattr("clients.commands.index_doctor.read_encoder_name", lambda index_dir: "minilm")
    return make_tiny_shop(tmp_path / "shop", LetterEncoder())


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, arguments)])


def good(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    return line


def change(shop: Workspace, *lines: dict[str, object]) -> str:
    path = shop.root / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return good("change", shop.root, path)


def test_the_shop_alone_builds(shop: Workspace) -> None:
    for arguments in ((shop.root,), (shop.root, "--keep", "2"), ("--keep", "2", shop.root), ("build", shop.root)):
        assert "index: version 000" in good(*arguments)
    assert [name[:4] for name in list_versions(shop.index_dir)] == ["0003", "0004", "0005"]


def test_a_folder_named_as_a_command_is_reached_by_its_path(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.root.rename(shop.root.parent / "doctor")
    monkeypatch.chdir(shop.root.parent)
    assert "index: version 0002" in good("./doctor")
    assert run("doctor").exit_code == 2  # the command, which misses its shop


def test_help_names_the_commands() -> None:
    for arguments in ((), ("-h",)):
        text = run(*arguments).stdout
        assert all(f" {name} " in text for name in ("build", "doctor", "versions", "rollback", "change"))


def test_changes_in_bulk_are_taken_into_the_next_version(shop: Workspace) -> None:
    said = change(
        shop,
        {"op": "put", "item_id": "j1", "title": "Halo", "category": "action"},
        {"op": "remove", "item_id": "i8"},
        {"op": "patch", "item_id": "i7", "available": True},
    )
    assert "3 lines read" in said
    assert "2 change something" in said
    assert "lines that the catalog says already: 1" in said
    assert "catalog: 8 items, 2 changes" in said
    good(shop.root)
    loaded = load_active(shop.index_dir, tiny_catalog(), journal_of(shop), encoder=LetterEncoder())
    assert loaded.position.changes == 2
    assert loaded.catalog.find_item_row("j1") == 7
    assert loaded.catalog.items_of(6) == ()
    assert loaded.popularity.tolist() == [0, 1, 1, 2, 0, 0, 0, 0]


def test_bad_lines_change_nothing(shop: Workspace) -> None:
    (shop.root / "lines.jsonl").write_text('{"op": "remove", "item_id": "i1"}\n{"op": "remove", "item_id": "i1"}\n')
    assert "line 2: unknown item_id" in fails("change", shop.root, shop.root / "lines.jsonl")
    assert journal_of(shop).is_empty()


def test_metrics_are_measured_on_the_catalog_as_it_was_imported(shop: Workspace) -> None:
    before = open_index(shop, Silence())
    change(shop, {"op": "put", "item_id": "j1", "title": "Halo"}, {"op": "remove", "item_id": "i8"})
    good(shop.root)
    after = open_index(shop, Silence())
    assert after.catalog.items == before.catalog.items
    assert after.popularity.tolist() == before.popularity.tolist()
    rankings = [index.grounder.rank(["halo", "Pong"], 7) for index in (before, after)]
    for one, other in zip(*rankings, strict=True):
        assert one.rows.tolist() == other.rows.tolist()


def test_versions_are_listed_and_the_way_back_keeps_the_changes(shop: Workspace, tmp_path: Path) -> None:
    [first] = list_versions(shop.index_dir)
    change(shop, {"op": "put", "item_id": "j1", "title": "Halo"})
    good(shop.root)
    second = list_versions(shop.index_dir)[-1]
    good("versions", shop.root, "--json", tmp_path / "v.json")
    listed = json.loads((tmp_path / "v.json").read_text())
    assert [(line["version"], line["state"], line["titles"], line["changes"]) for line in listed] == [
        (first, "kept", 7, 0), (second, "active", 8, 1),
    ]  # fmt: skip
    said = good("rollback", shop.root, first)
    assert f"version {first}" in said
    assert "changes of the catalog since that version: 1; they stay in force" in said
    live = LiveIndex(shop, LetterEncoder())
    assert live.snapshot.label == f"{first}+1"
    live.close()
    assert f"no index version 0009-00000000; there: {first}, {second};" in fails("rollback", shop.root, "0009-00000000")
    (shop.index_dir / second / "popularity.npy").write_bytes(b"")
    assert "changed since it was written" in fails("rollback", shop.root, second)
    assert "damaged" in good("versions", shop.root)


def test_doctor_is_content_with_a_sound_index(shop: Workspace, tmp_path: Path) -> None:
    change(shop, {"op": "put", "item_id": "j1", "title": "Halo"})
    said = good("doctor", shop.root, "--json", tmp_path / "report.json")
    assert "nothing of 11 is wrong" in said
    found = {line["what"]: line for line in json.loads((tmp_path / "report.json").read_text())}
    assert found["journal"]["found"] == "1 changes, each as written"
    assert "search: flat" in found["version"]["found"]
    assert found["duplicate titles"]["verdict"] == "notice"
    assert found["pending changes"]["found"].startswith("1 since this version, 1 new titles")


def test_doctor_names_what_does_not_open_and_the_command(shop: Workspace, tmp_path: Path) -> None:
    [version] = list_versions(shop.index_dir)
    path = shop.index_dir / version / "vectors.faiss"
    path.write_bytes(path.read_bytes()[:-8])
    shop.changes_path.write_text("{}\n")
    result = run("doctor", shop.root, "--json", tmp_path / "report.json")
    assert result.exit_code == 1
    found = {line["what"]: line for line in json.loads((tmp_path / "report.json").read_text())}
    assert [found[what]["verdict"] for what in ("catalog", "journal", "version")] == ["ok", "wrong", "wrong"]
    assert "file is not a database" in found["journal"]["found"]
    assert "vectors.faiss: changed since it was written" in found["version"]["found"]
    assert f"softrec index {shop.root}" in found["version"]["remedy"]


def test_doctor_names_another_encoder(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.commands.index_doctor.read_encoder_name", lambda index_dir: "base")
    result = run("doctor", shop.root)
    assert result.exit_code == 1
    assert "the index was built with the encoder base" in " ".join(result.stdout.split())


def test_a_new_import_sets_the_old_changes_aside(shop: Workspace, tmp_path: Path) -> None:
    change(shop, {"op": "put", "item_id": "j1", "title": "Halo"})
    (tmp_path / "items.csv").write_text("item_id,title\na,Alpha\nb,Beta\n")
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\n")
    files = ("--items", str(tmp_path / "items.csv"), "--interactions", str(tmp_path / "log.csv"))
    result = CliRunner().invoke(app, ["init", str(shop.root), *files, "--force"])
    assert result.exit_code == 0, result.output
    assert "changes of the old catalog: set aside in" in result.stdout
    assert (shop.root / "catalog_changes.1.db").exists()
    assert not shop.changes_path.exists()


def test_a_rebase_says_what_it_did_and_what_to_run_next(shop: Workspace) -> None:
    change(shop, {"op": "put", "item_id": "j1", "title": "Halo"}, {"op": "remove", "item_id": "i4"})
    result = CliRunner().invoke(app, ["rebase", str(shop.root)])
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "rebase: 2 changes are part of the imported catalog now: 9 items under 8 distinct titles" in said
    assert "removed items that the log names stay in the catalog, hidden: 1 (i4)" in said
    assert f"to train on the new catalog: softrec base {shop.root}" in said
    assert open_index(shop, Silence()).catalog.find_item_row("j1") == 7
    again = CliRunner().invoke(app, ["rebase", str(shop.root)])
    assert "no changes since the import" in again.stdout
    first = list_versions(shop.index_dir)[0]
    assert "catalog: expected 2-" in fails("rollback", shop.root, first)


def test_a_catalog_that_was_only_copied_over_does_not_get_the_old_ones_changes(shop: Workspace) -> None:
    change(shop, {"op": "remove", "item_id": "i8"})
    catalog = read_catalog(shop.catalog_path)
    write_catalog(shop.catalog_path, type(catalog).from_items(catalog.items[:-1]))
    assert "catalog that was changed: expected" in fails("change", shop.root, shop.root / "lines.jsonl")
    with pytest.raises(MismatchError, match="catalog that was changed"):
        open_index(shop, Silence())
