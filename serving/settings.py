"""Every serving setting, read once at the edge from `SOFTREC_*` variables and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticUndefined

from serving.errors import SettingsError

PREFIX = "SOFTREC_"


class ServingSettings(BaseModel):
    """How to serve. Field `k` is read from the environment as `SOFTREC_K`; lists are comma-separated there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapters: tuple[str, ...] = Field(default=(), description="Names of the adapters to serve; empty: all there are.")
    default_adapter: str = Field(
        default="", description="Answers requests without user_id; empty: soft if served, else the last by name."
    )
    allow_adapter_override: bool = Field(default=False, description="Let a request name its adapter.")

    experiment: str = Field(default="sft-vs-soft", description="The experiment's id and its hash seed; empty: none.")
    arms: tuple[str, ...] = Field(default=("sft", "soft"), description="The experiment's arms: adapter names.")
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="Share of each arm, summing to 1; empty: equal."
    )

    database_url: str = Field(default="", description="SQLAlchemy URL of the event store; empty: events.db, SQLite.")
    redis_url: str = Field(default="", description="redis:// or unix:// URL; empty: an embedded Redis.")
    history_limit: int = Field(default=1000, ge=1, le=10_000, description="Newest history items read of a user.")
    history_ttl_s: int = Field(default=86_400, ge=1, description="How long a cached history lives.")
    redis_timeout_ms: int = Field(default=250, ge=1, description="Longest wait for Redis before the store answers.")

    timeout_ms: int = Field(default=10_000, ge=1, le=120_000, description="Deadline of a request that names none.")
    max_running: int = Field(default=16, ge=1, description="Requests in the engine at the same time.")
    max_waiting: int = Field(default=64, ge=0, description="Requests that may wait for the engine; more get 503.")
    retry_after_s: int = Field(default=1, ge=1, description="What 503 tells the caller to wait.")
    max_body_bytes: int = Field(default=8 << 20, ge=1, description="Largest request body; more gets 413.")

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: as vLLM was built.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of the served weights; auto: float32 on the CPU, the model's own on a GPU."
    )
    kv_cache_gib: float = Field(default=0.5, gt=0, description="KV cache on the CPU; a GPU gives what it has left.")
    engine_threads: int = Field(
        default=0, ge=0, description="CPU threads of the engine; 0: OMP_NUM_THREADS, but at most all cores but one."
    )
    proof_tolerance: float = Field(
        default=0.0,
        ge=0,
        description="Nats per token by which an adapter may miss its golden values; 0: 0.002 in float32, else 0.05.",
    )

    @field_validator("adapters", "arms", "weights", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read_settings(environ: Mapping[str, str], **overrides: Any) -> ServingSettings:
    """Read settings from the environment; overrides that are not None win.

    `REDIS_URL` and `DATABASE_URL`, as hosting platforms set them, stand in for their `SOFTREC_` forms.

    Raises:
        SettingsError: a value is not allowed; every bad setting is named.
    """
    values: dict[str, Any] = {
        name: environ[variable] for name, variable in _variables().items() if environ.get(variable, "") != ""
    }
    for name in ("redis_url", "database_url"):
        if (value := environ.get(name.upper(), "")) != "":
            values.setdefault(name, value)
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return ServingSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{str(problem['loc'][0]).upper()}={problem['input']!r}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise SettingsError(f"serving settings: {problems}", remedy="see docs/serving.md") from None


def describe_settings() -> list[tuple[str, str, str]]:
    """Return (variable, default, description) of every setting, for documentation and `softrec doctor`."""
    return [
        (variable, "" if field.default is PydanticUndefined else str(field.default), field.description or "")
        for (name, variable) in _variables().items()
        for field in (ServingSettings.model_fields[name],)
    ]


def _variables() -> dict[str, str]:
    return {name: PREFIX + name.upper() for name in ServingSettings.model_fields}
