"""Batch scoring with a stand-in for the recommender: what is tested is files, order, rejects and resuming."""

import asyncio
import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.batch.batch import SCHEMA, BatchReport, BatchSettings, score_file
from clients.commands.score import describe_experiment
from clients.errors import RefusedError
from index.errors import InputError, MismatchError
from serving.errors import DeadlineError, EngineUnavailableError
from serving.schema import RecommendRequest, RecommendResponse
from serving.settings import ServingSettings
from training.progress import Silence


class Recommender:
    """Answers `k` items named after the user; can die after so many answers."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked: list[RecommendRequest] = []
        self.running = self.most_running = 0
        self.dies_after = dies_after

    async def __call__(self, request: RecommendRequest, request_id: str) -> RecommendResponse:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise EngineUnavailableError("the engine died")
        self.asked.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.0005 * (len(self.asked) % 3))  # answers come back out of order
        self.running -= 1
        if request.user_id == "slow":
            raise DeadlineError("no answer within 5 ms")
        return answer(request, request_id)


def answer(request: RecommendRequest, request_id: str) -> RecommendResponse:
    known = request.history != []
    nearest = {"generation": "t", "match": "nearest", "distance": 0.25, "margin": 0.1, "log_prob": None, "ambiguity": 1}
    grounding = nearest if known else None
    item = {"score": -0.25, "score_type": "negative_l2_distance", "source": "generated", "grounding": grounding}
    return RecommendResponse.model_validate(
        {
            "request_id": request_id,
            "items": [
                {"item_id": f"{request.user_id}-{rank}", "title": f"Title {rank}", "rank": rank, **item}
                for rank in range(1, request.k + 1)
            ],
            "adapter": "soft@1" if known else None,
            "experiment": {"id": None, "arm_assigned": None, "arm_served": None, "reason": "adapter_requested"},
            "index": {"version": "1", "encoder": "minilm"},
            "history": {"source": "inline", "used": 1, "dropped": 0, "unknown": 0},
            "degraded": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "timings_ms": dict.fromkeys(("history", "prompt", "queue", "generate", "ground", "record", "total"), 1.0),
        }
    )


def score(folder: Path, recommender: Recommender, **changes: Any) -> BatchReport:
    arguments: dict[str, Any] = {
        "served": {"index": "1"},
        "concurrency": 4,
        "restart": False,
        "progress": Silence(),
    } | changes
    settings = BatchSettings(k=2, adapter="soft", shard_rows=10)
    users, output = folder / "users.parquet", folder / "recs.parquet"
    return asyncio.run(score_file(users, output, recommender, settings, **arguments))


def write_users(folder: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), folder / "users.parquet")


def test_every_user_gets_k_rows_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=[f"u{n}" for n in range(25)])
    recommender = Recommender()
    assert score(tmp_path, recommender) == BatchReport(scored=25, rejected=0, resumed_shards=0)
    table = pq.read_table(tmp_path / "recs.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["user_id"].to_pylist() == [f"u{n}" for n in range(25) for _ in range(2)]
    assert table["rank"].to_pylist() == [1, 2] * 25
    assert set(table["adapter_id"].to_pylist()) == {"soft@1"}
    assert 1 < recommender.most_running <= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recs.parquet", "users.parquet"]


def test_histories_are_passed_on_and_whole_number_ids_become_text(tmp_path: Path) -> None:
    history = pa.array([["i1", "i2"], None, []], pa.list_(pa.string()))
    write_users(tmp_path, user_id=[7, 8, 9], history=history, more=[1.0, 2.0, 3.0])
    recommender = Recommender()
    score(tmp_path, recommender)
    asked = {request.user_id: request.history for request in recommender.asked}
    assert asked == {"7": ["i1", "i2"], "8": None, "9": []}
    table = pq.read_table(tmp_path / "recs.parquet").to_pylist()
    assert [(row["distance"], row["adapter_id"]) for row in table if row["user_id"] == "9"] == [(None, None)] * 2


def test_a_run_that_died_goes_on_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    """25 users in shards of 10: the engine dies at the 16th, so one shard is finished and 15 users are left."""
    write_users(tmp_path, user_id=[*[f"u{n}" for n in range(24)], "slow"])
    score(tmp_path, Recommender())
    unbroken = pq.read_table(tmp_path / "recs.parquet")
    rejects = (tmp_path / "recs.rejects.csv").read_text()
    (tmp_path / "recs.parquet").unlink()

    with pytest.raises(EngineUnavailableError):
        score(tmp_path, Recommender(dies_after=15))
    assert not (tmp_path / "recs.parquet").exists()
    again = Recommender()
    assert score(tmp_path, again) == BatchReport(scored=24, rejected=1, resumed_shards=1)
    assert len(again.asked) == 15
    assert pq.read_table(tmp_path / "recs.parquet").equals(unbroken)
    assert (tmp_path / "recs.rejects.csv").read_text() == rejects


def test_rows_that_cannot_be_scored_are_put_aside_with_their_reason(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=["a", None, "b\n", "slow", "a", "", "c"])
    assert score(tmp_path, Recommender()) == BatchReport(scored=2, rejected=5, resumed_shards=0)
    with (tmp_path / "recs.rejects.csv").open(newline="") as file:
        found = [(int(line["row"]), line["user_id"], line["reason"]) for line in csv.DictReader(file)]
    assert [row for row, _, _ in found] == [2, 3, 4, 5, 6]
    reasons = dict(enumerate((reason for _, _, reason in found), start=2))
    assert reasons[2] == "no user_id"
    assert reasons[3].startswith("user_id: ")
    assert reasons[4] == "no answer within 5 ms"
    assert reasons[5] == "user_id seen before"
    write_users(tmp_path, user_id=["a"])
    score(tmp_path, Recommender())
    assert not (tmp_path / "recs.rejects.csv").exists()


def test_an_unfinished_run_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=[f"u{n}" for n in range(25)])
    with pytest.raises(EngineUnavailableError):
        score(tmp_path, Recommender(dies_after=15))
    with pytest.raises(MismatchError, match="--restart"):
        score(tmp_path, Recommender(), served={"index": "2"})
    recommender = Recommender()
    assert score(tmp_path, recommender, served={"index": "2"}, restart=True).resumed_shards == 0
    assert len(recommender.asked) == 25


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("content", [None, "{", "[]", '{"made_by": "somebody"}'])
def test_a_folder_of_that_name_that_is_not_ours_is_refused_and_kept(
    content: str | None, restart: bool, tmp_path: Path
) -> None:
    write_users(tmp_path, user_id=["a"])
    parts = tmp_path / "recs.parquet.parts"
    parts.mkdir()
    (parts / "00000.parquet").write_text("a photograph")
    if content is not None:
        (parts / "run.json").write_text(content)
    recommender = Recommender()
    with pytest.raises(RefusedError, match=r"is not a folder of `softrec score`.*; move it away"):
        score(tmp_path, recommender, restart=restart)
    assert (parts / "00000.parquet").read_text() == "a photograph"
    assert recommender.asked == []


def test_a_link_to_our_folder_is_refused(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=[f"u{n}" for n in range(25)])
    with pytest.raises(EngineUnavailableError):
        score(tmp_path, Recommender(dies_after=15))
    parts = tmp_path / "recs.parquet.parts"
    parts.rename(tmp_path / "elsewhere")
    parts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        score(tmp_path, Recommender(), restart=True)
    assert (tmp_path / "elsewhere" / "00000.parquet").exists()


def test_files_of_others_in_our_folder_stay_and_an_empty_folder_is_used(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=["a"])
    parts = tmp_path / "recs.parquet.parts"
    parts.mkdir()
    score(tmp_path, Recommender())
    assert not parts.exists()
    write_users(tmp_path, user_id=[f"u{n}" for n in range(25)])
    with pytest.raises(EngineUnavailableError):
        score(tmp_path, Recommender(dies_after=15))
    (parts / "notes.txt").write_text("mine")
    score(tmp_path, Recommender())
    assert [path.name for path in parts.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("restart", [False, True])
def test_a_kill_while_the_folder_is_removed_leaves_nothing_that_counts(
    restart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the end of a run, or at the beginning of one with --restart: the next one scores all its users."""
    write_users(tmp_path, user_id=[f"old{n}" for n in range(25)])
    if restart:
        with pytest.raises(EngineUnavailableError):
            score(tmp_path, Recommender(dies_after=15))
    unlink = Path.unlink

    def die(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "recs.parquet.parts" and path.name[0].isdigit():
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            score(tmp_path, Recommender(), restart=restart)
    parts = tmp_path / "recs.parquet.parts"
    assert list(parts.glob("*.parquet"))
    write_users(tmp_path, user_id=[f"new{n}" for n in range(25)])
    recommender = Recommender()
    assert score(tmp_path, recommender).resumed_shards == 0
    assert len(recommender.asked) == 25
    assert not parts.exists()


def test_a_run_under_other_arms_or_weights_is_another_run(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=[f"u{n}" for n in range(25)])
    plain = describe_experiment(ServingSettings())
    assert plain == {"experiment": "sft-vs-soft", "arms": ["sft", "soft"], "weights": []}
    with pytest.raises(EngineUnavailableError):
        score(tmp_path, Recommender(dies_after=15), served=plain)
    for changes in ({"experiment": "other"}, {"arms": ("soft", "sft")}, {"weights": (0.9, 0.1)}):
        changed = ServingSettings.model_validate(changes)
        with pytest.raises(MismatchError, match="--restart"):
            score(tmp_path, Recommender(), served=describe_experiment(changed))
    assert score(tmp_path, Recommender(), served=plain).resumed_shards == 1


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        ({"user": ["a"]}, "no column user_id; it has user"),
        ({"user_id": [1.5]}, "user_id is double"),
        ({"user_id": ["a"], "history": ["i1"]}, "history is string"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_what_was_seen(
    columns: dict[str, Any], seen: str, tmp_path: Path
) -> None:
    write_users(tmp_path, **columns)
    with pytest.raises(InputError, match=seen):
        score(tmp_path, Recommender())


def test_no_file_and_no_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        score(tmp_path, Recommender())
    (tmp_path / "users.parquet").write_text("user_id\na\n")
    with pytest.raises(InputError, match="not a Parquet file"):
        score(tmp_path, Recommender())


def test_no_users_give_an_empty_file(tmp_path: Path) -> None:
    write_users(tmp_path, user_id=pa.array([], pa.string()))
    assert score(tmp_path, Recommender()) == BatchReport(scored=0, rejected=0, resumed_shards=0)
    assert pq.read_table(tmp_path / "recs.parquet").num_rows == 0
