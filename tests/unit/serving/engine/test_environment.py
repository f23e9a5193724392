"""What the engine's process alone inherits."""

import pytest

from serving.engine.environment import engine_threads, starting_engine


def test_the_engine_leaves_a_core_to_the_server() -> None:
    most = engine_threads({})
    assert most >= 1
    assert engine_threads({"OMP_NUM_THREADS": "1"}) == 1
    assert engine_threads({"OMP_NUM_THREADS": "100000"}) == most
    assert engine_threads({"OMP_NUM_THREADS": "4,2"}) == most


def test_only_the_engine_inherits_its_threads_and_folder() -> None:
    environ = {"OMP_NUM_THREADS": "4"}
    with starting_engine(environ, threads=1) as folder:
        assert environ == {
            "OMP_NUM_THREADS": "1", "VLLM_RPC_BASE_PATH": str(folder), "VLLM_USE_V2_MODEL_RUNNER": "0"
        }  # fmt: skip
        assert folder.is_dir()
    assert environ == {"OMP_NUM_THREADS": "4"}
    folder.rmdir()
    with pytest.raises(OSError, match="no"), starting_engine(environ, threads=None) as folder:
        raise OSError("no")
    assert not folder.exists()
