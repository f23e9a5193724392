"""The command line, as far as it goes without training anything."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clients.cli import app
from clients.demo_shop import write_demo_shop

VERBS = ["demo", "init", "base", "train", "index", "evaluate", "compare", "serve", "recommend", "score", "doctor"]


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


def test_doctor_is_content_with_a_sound_machine(tmp_path: Path) -> None:
    result = run("doctor", "--quick")
    assert result.exit_code == 0, result.output
    assert "all " in result.stdout.splitlines()[-1]
