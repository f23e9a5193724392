"""SFT, distillation and SOFT on a small shop, with the real encoder and index; then what they published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError, SoftrecError
from index.titles.trie_store import open_trie
from index.workspace import Workspace
from tests.notes import Notes
from tests.shop import SETTINGS, add_index
from training.adapter import check_adapter, read_adapter, read_adapters
from training.base_model import locate_base
from training.data.dataset import check_trained_on, load_dataset
from training.errors import DivergedError, SettingError, TrainingError
from training.generation.title_scorer import TitleScorer
from training.loop.publishing import _check_weights, summed_log_probs
from training.loop.run import open_run
from training.loop.run_folder import RunFolder
from training.measure.evaluation import evaluate_adapters
from training.measure.mode_choice import Trial
from training.measure.validation import Validation
from training.model.language_model import add_lora, load_base, read_lora, read_merged
from training.progress import Progress, Silence
from training.recipes.methods import SFT, SOFT, train
from training.recipes.soft.distillation import Distilled, ensure_distilled, read_distilled
from training.settings import TrainSettings


@pytest.fixture
def shop(trained_shop: Workspace, tmp_path: Path) -> Workspace:
    """A copy to change."""
    shutil.copytree(trained_shop.root, tmp_path / "shop")
    return Workspace.open(tmp_path / "shop")


def grounder_of(workspace: Workspace):
    return add_index(workspace)


def test_sft_learned_something(trained_adapters):
    history = (trained_adapters["sft"].path / "history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in history]
    assert losses[-1] < losses[0]


def test_soft_starts_on_distilled_titles_and_follows_the_distance(trained_adapters):
    """tau is 1 in the first epoch by definition, then min(1, exp(alpha * (d_t / d_0 - 1)))."""
    soft = trained_adapters["soft"]
    rows = [json.loads(line) for line in (soft.path / "history.jsonl").read_text().splitlines()]
    assert rows[0]["tau"] == 1.0
    d_0 = rows[0]["d_t"]
    for row in rows:
        assert row["tau"] == pytest.approx(min(1.0, np.exp(SETTINGS.curriculum_alpha * (row["d_t"] / d_0 - 1))))
    assert soft.facts.parents == (trained_adapters["sft"].adapter_id,)
    assert {"distilled_unique", "distilled_true", "distilled_off_catalog"} <= set(soft.facts.metrics)


def test_the_adapters_differ_from_the_base_and_from_each_other(trained_adapters):
    sft, soft = trained_adapters["sft"].golden, trained_adapters["soft"].golden
    assert [golden.prompt_ids for golden in sft] == [golden.prompt_ids for golden in soft]
    assert all(abs(golden.log_prob - golden.base_log_prob) > 0.5 for golden in (*sft, *soft))
    assert max(abs(a.log_prob - b.log_prob) for a, b in zip(sft, soft, strict=True)) > 0.05


def test_published_folders_name_no_path_of_this_machine(trained_shop):
    for path in (*trained_shop.adapters_dir.rglob("*.json"), *trained_shop.adapters_dir.rglob("*.md")):
        assert str(trained_shop.root) not in path.read_text(encoding="utf-8"), path


def test_training_again_gives_the_same_adapter(shop, trained_adapters):
    """Same seed, same data, same threads: the same weights and so the same losses, number for number."""
    again = train(SFT, shop, SETTINGS, grounder_of(shop), Silence())
    assert again.golden == trained_adapters["sft"].golden
    assert again.facts.metrics["loss"] == trained_adapters["sft"].facts.metrics["loss"]


def distil(shop: Workspace, settings: TrainSettings, progress: Progress) -> Distilled:
    with open_run(shop, settings, grounder_of(shop), progress) as run:
        return ensure_distilled(run, read_adapter(shop.adapter_dir("sft")))


def test_distilled_titles_are_kept_until_they_no_longer_fit(shop, trained_adapters):
    """The file is touched only when the titles are made again."""
    made = shop.distilled_path.stat().st_mtime_ns
    stored = distil(shop, SETTINGS, Silence())
    assert len(stored.titles) == len(load_dataset(shop, SETTINGS, Silence()).split.train)
    assert stored.teacher == trained_adapters["sft"].adapter_id
    assert shop.distilled_path.stat().st_mtime_ns == made
    notes = Notes()
    narrow = distil(shop, replace(SETTINGS, beams=2), notes)
    assert narrow.provenance["beams"] == "2"
    assert notes.said == ["the distilled titles were made with another beams: distilling again"]
    assert distil(shop, SETTINGS, Silence()).titles == stored.titles
    shop.distilled_path.write_bytes(b"PAR1")
    with pytest.raises(CorruptArtifactError, match="remove it and run `softrec train soft"):
        read_distilled(shop.distilled_path)


def test_the_run_is_locked_until_its_adapter_is_published(shop, monkeypatch):
    """A second `train` that came while the mode was chosen resumed the finished run, and published it too."""
    refused: list[str] = []
    choose = Validation.choose_mode

    def choose_mode(self, *arguments):
        with (
            pytest.raises(TrainingError, match="another process trains in") as caught,
            RunFolder(shop.run_dir("sft")).lock(),
        ):
            pass
        refused.append(str(caught.value))
        return choose(self, *arguments)

    monkeypatch.setattr(Validation, "choose_mode", choose_mode)
    train(SFT, shop, replace(SETTINGS, train_windows=16, max_epochs=1), grounder_of(shop), Silence())
    assert len(refused) == 1
    assert not shop.run_dir("sft").exists()


def test_evaluation_covers_the_same_windows_for_all_and_popularity_comes_first(shop):
    evaluations = evaluate_adapters(
        shop, ["sft", "base"], SETTINGS, grounder_of(shop), Silence(), modes=[("beam", "l2")]
    )
    assert [evaluation.method for evaluation in evaluations] == ["popularity", "sft", "base"]
    assert len({evaluation.users for evaluation in evaluations}) == 1
    written = [
        pq.read_table(shop.reports_dir / f"positions-{name}-beam-l2.parquet")["generation"] for name in ("sft", "base")
    ]
    assert written[0] != written[1]
    row = evaluations[1].to_json()
    assert (row["method"], row["decoding"], row["ranking"]) == ("sft", "beam", "l2")
    assert row["HR@10_low"] <= row["HR@10"] <= row["HR@10_high"]


def test_a_step_whose_input_is_missing_names_the_command(shop, based_shop):
    grounder = grounder_of(shop)
    with pytest.raises(MissingArtifactError, match="softrec train sft"):
        train(SOFT, based_shop, SETTINGS, grounder, Silence())
    shutil.rmtree(shop.base_dir)
    with pytest.raises(MissingArtifactError, match="softrec base"):
        train(SFT, shop, SETTINGS, grounder, Silence())
    shop.catalog_path.unlink()
    with pytest.raises(MissingArtifactError, match="softrec init"):
        train(SFT, shop, SETTINGS, grounder, Silence())


def test_an_adapter_of_another_base_is_refused_with_both_digests(trained_shop, trained_adapters):
    facts = trained_adapters["sft"].facts
    with pytest.raises(MismatchError, match=r"base model: expected 0000, found [0-9a-f]{12}; train it again"):
        check_adapter(
            trained_adapters["sft"],
            base_digest="0000",
            tokenizer_digest=facts.tokenizer_digest,
            catalog_digest=facts.catalog_digest,
        )


def test_a_base_or_adapter_that_saw_another_part_of_the_log_is_refused(shop, trained_adapters):
    """Other windows move the split in time: base and adapters could have read what is now a test target."""
    moved = replace(SETTINGS, min_history=10)
    with pytest.raises(MismatchError, match=r"part of the log that the stand-in base was trained on.*softrec base"):
        load_dataset(shop, moved, Silence())
    dataset = load_dataset(shop, SETTINGS, Silence())
    check_trained_on(trained_adapters["sft"], dataset)
    other = replace(dataset, split=replace(dataset.split, histories=dataset.split.histories[:-1]))
    with pytest.raises(MismatchError, match=r"sft@\w+: its training part of the log: expected \w+, found \w+"):
        check_trained_on(trained_adapters["sft"], other)
    template = replace(dataset.renderer.template, noun="song")
    reworded = replace(dataset, renderer=dataset.base.renderer(template))
    with pytest.raises(MismatchError, match=r"sft@\w+: its prompt: expected .*'song'.*, found .*'title'"):
        check_trained_on(trained_adapters["sft"], reworded)


def test_a_changed_byte_of_an_adapter_is_refused_and_an_unfinished_one_does_not_count(shop):
    weights = shop.adapter_dir("sft") / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match="changed since it was written"):
        read_adapter(shop.adapter_dir("sft"))
    (shop.adapter_dir("sft") / "manifest.json").unlink()
    assert list(read_adapters(shop.adapters_dir)) == ["soft"]


def test_an_adapter_that_would_do_nothing_is_not_published(based_shop):
    base = load_base(locate_base(based_shop).path, precision="fp32")
    model = add_lora(base, SETTINGS)
    with pytest.raises(DivergedError, match="every LoRA update is zero"):
        _check_weights(model)


def test_lora_modules_that_name_nothing_are_refused(based_shop):
    base = load_base(locate_base(based_shop).path, precision="fp32")
    with pytest.raises(SettingError, match=r"lora_modules='nope' names no module of this base .*all-linear"):
        add_lora(base, replace(SETTINGS, lora_modules="nope"))


def test_a_base_that_is_nowhere_is_one_line(based_shop):
    for name in ("no/such-model", "not a possible name!"):
        named = Workspace(based_shop.root, replace(based_shop.settings, base_model=name))
        with pytest.raises(SoftrecError, match="is not a folder, and the hub did not give it"):
            locate_base(named)


def test_a_published_adapter_reads_back_into_the_same_function(trained_shop, trained_adapters):
    dataset = load_dataset(trained_shop, SETTINGS, Silence())
    model = read_lora(load_base(dataset.base.path, precision="fp32"), trained_adapters["soft"].path)
    windows = dataset.split.validation[: SETTINGS.golden_prompts]
    found = summed_log_probs(model, dataset.samples(windows, dataset.titles(windows)))
    assert found == pytest.approx([golden.log_prob for golden in trained_adapters["soft"].golden], abs=1e-4)


def test_an_adapter_is_published_with_the_mode_that_won_and_is_evaluated_in_all(shop):
    """The oracle's best title is that of all titles' scores; a line's losses and its HR@10 add up to one."""
    facts = read_adapter(shop.adapter_dir("sft")).facts
    served = Trial(facts.decoding.mode, facts.decoding.width, facts.ranking, hr10=0, ndcg10=0).name
    for metric in ("hr10", "ndcg10"):
        assert facts.metrics[f"mode_chosen_{metric}"] == facts.metrics[f"mode_{served}_{metric}"]
    modes = [("exact", "likelihood"), ("constrained_beam", "likelihood"), (None, "fusion"), ("sample_n", "likelihood")]
    found = evaluate_adapters(shop, ["sft"], SETTINGS, grounder_of(shop), Silence(), modes=[*modes, ("greedy", "l2")])
    popularity, exact, beam, _, _, paper = found
    assert popularity.method == "popularity"
    assert [(one.decoding, one.ranking) for one in found[1:]] == [
        ("exact", "likelihood"),
        ("constrained_beam", "likelihood"),
        ("constrained_beam", "fusion"),
        ("sample_n", "likelihood"),
        ("greedy", "l2"),
    ]
    best = pq.read_table(shop.reports_dir / "positions-sft-exact-likelihood.parquet")["generation"].to_pylist()
    dataset = load_dataset(shop, SETTINGS, Silence())
    trie = open_trie(shop.index_dir, dataset.catalog, dataset.renderer)
    model = read_merged(load_base(dataset.base.path, precision="fp32"), shop.adapter_dir("sft"))
    scores = TitleScorer(model, trie).score(dataset.prompts(dataset.split.test[:5]))
    assert best[:5] == [dataset.catalog.titles[trie.rows[row.argmax()]] for row in scores]
    assert exact.on_catalog == beam.on_catalog == 1
    assert sum(paper.lost.values()) + paper.metrics["HR@10"].mean == pytest.approx(1)
    assert exact.lost["lost_in_grounding"] == 0
    assert [one.is_served for one in evaluate_adapters(shop, ["sft"], SETTINGS, grounder_of(shop), Silence())] == [
        False,
        True,
    ]
