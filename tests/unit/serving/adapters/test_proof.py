"""The proof of effect, and the choice of what to serve."""

from dataclasses import replace
from pathlib import Path

import pytest

from index.artifact import write_artifact
from index.errors import CorruptArtifactError
from index.ranking.ranking_spec import RankingSpec
from index.workspace import ShopSettings, Workspace
from serving.adapters.proof import choose_adapters, proof_tolerance, prove_adapter
from serving.errors import AdapterProofError, SettingsError
from tests.fake_engine import ADAPTER_NATS, FakeEngine
from tests.tiny_shop import tiny_catalog, write_tiny_adapter, write_tiny_base
from training.adapter import Adapter, Decoding, read_adapter, read_adapters, write_adapter_files


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.create(tmp_path, ShopSettings())
    base = write_tiny_base(workspace)
    write_tiny_adapter(workspace, "soft", base, tiny_catalog())
    write_tiny_adapter(workspace, "other", base, tiny_catalog(), log_prob=-6.5)
    write_tiny_adapter(workspace, "stranger", base, tiny_catalog(), base_log_prob=-1.0)
    return workspace


@pytest.fixture
def adapters(workspace: Workspace) -> dict[str, Adapter]:
    return read_adapters(workspace.adapters_dir)


async def test_an_honest_adapter_is_proven(adapters: dict[str, Adapter]) -> None:
    """The fake engine gives 1 nat per token under an adapter and 2 under the base: gap 0, effect 1."""
    proof = await prove_adapter(FakeEngine({}), adapters["soft"], tolerance=0.01)
    assert (proof.gap, proof.effect) == (0.0, 1.0)


async def test_a_disagreement_names_both_numbers(adapters: dict[str, Adapter]) -> None:
    """The title Doom is 4 byte tokens, a quote and an end: 6 tokens, -6 nats under an adapter, -12 under the base."""
    with pytest.raises(
        AdapterProofError, match=r"adapter other@.*log-probability -6\.5000, served -6\.0000"
    ) as refused:
        await prove_adapter(FakeEngine({}), adapters["other"], tolerance=0.01)
    assert f"`softrec train other {adapters['other'].path.parent.parent}`" in str(refused.value)
    with pytest.raises(AdapterProofError, match=r"the base under adapter stranger@.* -1\.0000, served -12\.0000"):
        await prove_adapter(FakeEngine({}), adapters["stranger"], tolerance=0.01)
    assert (await prove_adapter(FakeEngine({}), adapters["other"], tolerance=0.1)).gap == pytest.approx(0.5 / 6)


async def test_an_adapter_without_effect_is_refused(adapters: dict[str, Adapter]) -> None:
    class BaseOnly(FakeEngine):
        async def log_prob(self, prompt_ids, completion_ids, *, adapter_id):
            return len(completion_ids) * ADAPTER_NATS

    golden = [replace(prompt, base_log_prob=prompt.log_prob) for prompt in adapters["soft"].golden]
    with pytest.raises(AdapterProofError, match="does nothing"):
        await prove_adapter(BaseOnly({}), replace(adapters["soft"], golden=tuple(golden)), tolerance=0.01)


async def test_not_a_number_proves_nothing(adapters: dict[str, Adapter]) -> None:
    class Broken(FakeEngine):
        async def log_prob(self, prompt_ids, completion_ids, *, adapter_id):
            return float("nan")

    with pytest.raises(AdapterProofError, match="served nan"):
        await prove_adapter(Broken({}), adapters["soft"], tolerance=0.01)


def test_what_is_served_is_what_was_asked_for(workspace: Workspace) -> None:
    folder = workspace.adapters_dir
    assert [adapter.name for adapter in choose_adapters(folder, ())] == ["other", "soft", "stranger"]
    assert [adapter.name for adapter in choose_adapters(folder, ("soft",))] == ["soft"]
    with pytest.raises(SettingsError, match="adapter nope not found; available: other, soft, stranger"):
        choose_adapters(folder, ("nope",))
    with pytest.raises(SettingsError, match=r"no adapter to serve; train one with `softrec train soft \S*/empty`"):
        choose_adapters(workspace.root / "empty" / "adapters", ())


def test_an_adapter_that_is_not_asked_for_is_not_looked_into(workspace: Workspace) -> None:
    (workspace.adapter_dir("other") / "adapter_model.safetensors").write_text("damaged")
    (workspace.adapters_dir / "unfinished").mkdir()
    assert [adapter.name for adapter in choose_adapters(workspace.adapters_dir, ("stranger", "soft"))] == [
        "stranger",
        "soft",
    ]
    with pytest.raises(CorruptArtifactError, match="other"):
        choose_adapters(workspace.adapters_dir, ())


def test_an_adapter_of_another_decoding_and_ranking_is_read_as_it_is(workspace: Workspace) -> None:
    soft = read_adapter(workspace.adapter_dir("soft"))
    facts = replace(soft.facts, decoding=Decoding("constrained_beam", 5, 7), ranking=RankingSpec("likelihood"))
    with write_artifact(workspace.adapter_dir("beams"), kind="adapter") as draft:
        write_adapter_files(draft, facts, soft.golden)
    [beams] = choose_adapters(workspace.adapters_dir, ("beams",))
    assert (beams.facts.decoding, beams.facts.ranking) == (facts.decoding, facts.ranking)


@pytest.mark.parametrize("mode", ["beam", "sample_n", "exact"])
def test_a_manifest_with_a_decoding_that_no_server_has_is_refused(workspace: Workspace, mode: str) -> None:
    soft = read_adapter(workspace.adapter_dir("soft"))
    with write_artifact(workspace.adapter_dir("foreign"), kind="adapter") as draft:
        write_adapter_files(draft, soft.facts, soft.golden)
        draft.body["decoding"] |= {"mode": mode}
    with pytest.raises(
        CorruptArtifactError, match=rf"decoding mode '{mode}', not one of greedy, constrained_beam.*train"
    ):
        choose_adapters(workspace.adapters_dir, ("foreign",))


def test_the_tolerance_fits_the_dtype() -> None:
    assert proof_tolerance(None, dtype="float32") < proof_tolerance(None, dtype="bfloat16")
    assert proof_tolerance(0.3, dtype="float32") == 0.3
