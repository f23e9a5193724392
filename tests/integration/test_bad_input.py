"""What must not train ends in one line with a remedy and exit code 2, before the first update."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, normalizers
from typer.testing import CliRunner

from clients.cli import app
from index.workspace import Workspace
from tests.shop import settings_arguments
from tests.tiny_shop import write_tiny_tokenizer


def refused(*arguments: str | Path) -> str:
    """Run a command that must fail and return the last line on standard error: notes may come before it."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("softrec: "), line
    assert "; " in line  # the remedy
    return line


def make_shop(tmp_path: Path, *, interactions: int, step_s: int) -> Path:
    """Six users with so many interactions each, so many seconds apart; of the eight titles one has an accent."""
    titles = ["Amélie", "Brazil", "Casino", "Diva", "Eraser", "Fargo", "Gandhi", "Heat"]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{at},{name}\n" for at, name in enumerate(titles)))
    log = [f"u{user},{(user + at) % 8},{step_s * (6 * at + user)}" for user in range(6) for at in range(interactions)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log) + "\n")
    files = ("--items", tmp_path / "items.csv", "--interactions", tmp_path / "log.csv")
    result = CliRunner().invoke(app, list(map(str, ("init", tmp_path / "shop", *files, "--split", "time"))))
    assert result.exit_code == 0, result.output
    return tmp_path / "shop"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make_shop(tmp_path, interactions=13, step_s=60)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A named base as far as it is read before its weights: one token per byte, 1,024 positions."""
    folder = tmp_path / "llm"
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 256, "max_position_embeddings": 1024}))
    (folder / "model.safetensors").touch()  # must be there; nothing gets as far as reading it
    return folder


def test_prompts_longer_than_the_context(shop, base):
    """The paper's preset asks for 2,048 + 130 tokens of the base's 1,024."""
    line = refused("train", "sft", shop, "--base", base, "--dry-run")
    assert "2048 tokens (max_prompt_tokens)" in line
    assert "--set max_prompt_tokens=894" in line


def test_a_prompt_without_room_for_a_title(shop, base):
    """The instruction alone takes more than 200 tokens of one byte each."""
    assert "raise max_prompt_tokens" in refused(
        "train", "sft", shop, "--base", base, "--dry-run", "--set", "max_prompt_tokens=200"
    )


def test_completions_that_the_tokenizer_cannot_spell(shop, base):
    """Without accents Amélie becomes Amelie, which the catalog does not know."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    tokenizer.save(str(base / "tokenizer.json"))
    line = refused("train", "sft", shop, "--base", base, "--dry-run", "--preset", "tiny")
    assert "training windows: the target does not come back from its tokens" in line
    assert "'Amélie'" in line
    assert "choose a base" in line


def test_no_target_that_is_short_enough(shop, base):
    line = refused("train", "sft", shop, "--base", base, "--dry-run", "--preset", "tiny", "--set", "max_title_tokens=3")
    assert "no training target is at most 3 tokens long: user u" in line
    assert "--set max_title_tokens=N" in line


def test_a_log_without_a_part_to_validate_on(tmp_path, base):
    """Everything happened in one second, so nothing is later than what is trained on."""
    shop = make_shop(tmp_path, interactions=8, step_s=0)
    line = refused("train", "sft", shop, "--base", base, "--dry-run", "--preset", "tiny")
    assert "the log gives no validation window (split: time, users: 6)" in line


def test_an_unknown_setting(shop):
    assert "did you mean learning_rate?" in refused("train", "sft", shop, "--dry-run", "--set", "learning_rat=1")


def test_a_base_that_is_not_there(shop, tmp_path):
    assert "softrec base" in refused("train", "soft", shop, "--dry-run")


@pytest.fixture
def trained(trained_shop: Workspace, tmp_path: Path) -> Workspace:
    """A copy to spoil."""
    shutil.copytree(trained_shop.root, tmp_path / "trained")
    return Workspace.open(tmp_path / "trained")


def own_settings() -> list[str]:
    """The settings of the shop's adapters, so that all that is stored fits."""
    return settings_arguments()


def emptied(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("title")
    return table.set_column(place, "title", pa.array([""] * len(table)))


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["train", "dry run"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (emptied, "self-distilled titles are empty"),
        (lambda table: table.slice(1), "one per training window: expected"),
        (lambda table: table.slice(0, 0), "holds no self-distilled title"),
    ],
    ids=["all empty", "one too few", "none"],
)
def test_distilled_titles_that_cannot_be_learned(trained: Workspace, spoil, said, more):
    pq.write_table(spoil(pq.read_table(trained.distilled_path)), trained.distilled_path)
    assert said in refused("train", "soft", trained.root, *own_settings(), *more)


def test_a_base_and_an_adapter_that_disagree(trained: Workspace):
    """Evaluated with another prompt than it was trained with; the same check stands before self-distillation."""
    line = refused("evaluate", trained.root, "sft", "--set", "max_history=5")
    assert "its prompt: expected" in line
    assert "train it again with `softrec train sft" in line
