"""vLLM's environment: filled in, never overridden."""

from training.generation.vllm.environment import prepare_environment


def test_what_the_operator_set_stays() -> None:
    environ = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    prepare_environment(environ, on_cpu=True)
    assert environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert environ["VLLM_NO_USAGE_STATS"] == "1"
    assert environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_a_gpu_gets_nothing_of_the_cpus() -> None:
    environ: dict[str, str] = {}
    prepare_environment(environ, on_cpu=False)
    assert "TORCHDYNAMO_DISABLE" not in environ
    assert not [name for name in environ if "CPU" in name]
