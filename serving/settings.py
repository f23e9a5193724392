"""Every serving setting, read once at the edge from `SOFTREC_*` variables and the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from index.ranking.ranking_spec import RankingMode
from serving.errors import SettingsError
from training.adapter import DecodingMode
from training.recipes.methods import method_names

PREFIX = "SOFTREC_"


class ServingSettings(BaseModel):
    """How to serve. Field `k` is read from the environment as `SOFTREC_K`; lists are comma-separated there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapters: tuple[str, ...] = Field(default=(), description="Names of the adapters to serve; empty: all.")
    default_adapter: str | None = Field(
        default=None,
        description="Answers outside the experiment; empty: the last method's that is served, else the last by name.",
    )
    allow_adapter_override: bool = Field(default=False, description="Let a request name its adapter.")
    allow_item_changes: bool = Field(default=False, description="Let requests add, change and remove items.")

    decoding: DecodingMode | None = Field(
        default=None, description="How titles are written; empty: as each adapter's manifest says."
    )
    width: int | None = Field(
        default=None, ge=1, le=100, description="Beams of constrained_beam; empty: the manifest's, else 20."
    )
    ranking: RankingMode | None = Field(
        default=None, description="How items are ranked; empty: as each adapter's manifest says."
    )

    experiment: str | None = Field(
        default="-vs-".join(method_names()), description="The experiment's id and its hash seed; empty: none."
    )
    arms: tuple[str, ...] = Field(default=method_names(), description="The experiment's arms: served adapters.")
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="Share of each arm, summing to 1; empty: equal."
    )

    database_url: str | None = Field(
        default=None,
        description="sqlite:/// or postgresql:// URL of the event store; empty: events.db of the workspace.",
    )
    redis_url: str | None = Field(default=None, description="redis:// or unix:// URL; empty: an embedded Redis.")
    history_limit: int = Field(default=1000, ge=1, le=10_000, description="Newest items read of a user's history.")
    history_ttl_s: int = Field(default=86_400, ge=1, description="Lifetime of a cached history.")
    redis_timeout_ms: int = Field(default=250, ge=1, description="Longest wait for Redis before the store answers.")

    timeout_ms: int = Field(default=10_000, ge=1, le=120_000, description="Deadline of a request that names none.")
    hung_after_ms: int = Field(
        default=10_000, ge=1, description="An engine that was asked and wrote no token for so long hangs: /readyz 503."
    )
    max_running: int = Field(default=16, ge=1, description="Requests in the engine at the same time.")
    max_waiting: int = Field(default=64, ge=0, description="Requests that may wait for the engine; more get 503.")
    retry_after_s: int = Field(
        default=1, ge=1, description="Retry-After of 503 overloaded, in seconds; other 503s say 1."
    )
    max_body_bytes: int = Field(default=8 << 20, ge=1, description="Largest request body; more gets 413.")

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of the served weights; auto: float32 on the CPU, the model's own on a GPU."
    )
    kv_cache_gib: float = Field(default=0.5, gt=0, description="KV cache on the CPU; on a GPU vLLM takes the rest.")
    engine_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of the engine; empty: OMP_NUM_THREADS, but at most all cores but one.",
    )
    proof_tolerance: float | None = Field(
        default=None,
        gt=0,
        description="Nats per token by which an adapter may miss its golden values; empty: 0.002 in float32, or 0.05.",
    )

    @field_validator("experiment", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return value or None

    @field_validator("adapters", "arms", "weights", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read_settings(environ: Mapping[str, str], **overrides: Any) -> ServingSettings:
    """Read settings from the environment; overrides that are not None win.

    An empty variable counts as unset, except `SOFTREC_EXPERIMENT`: there it means none. `REDIS_URL` and `DATABASE_URL`,
    as hosting platforms set them, replace unset `SOFTREC_` forms.

    Raises:
        SettingsError: a variable is unknown or a value invalid; the message names all of them.
    """
    variables = {PREFIX + name.upper(): name for name in ServingSettings.model_fields}
    _refuse_unknown(environ, variables)
    values: dict[str, Any] = {
        name: environ[variable]
        for variable, name in variables.items()
        if environ.get(variable, "") != "" or (name == "experiment" and variable in environ)
    }
    for name in ("redis_url", "database_url"):
        if (value := environ.get(name.upper(), "")) != "":
            values.setdefault(name, value)
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return ServingSettings.model_validate(values)
    except ValidationError as error:
        problems: dict[str, str] = {}  # one per variable: pydantic reports each branch of a union
        for problem in error.errors(include_url=False):
            variable = PREFIX + str(problem["loc"][0]).upper()
            problems.setdefault(variable, f"{variable}={problem['input']!r}: {problem['msg']}")
        raise SettingsError(f"serving settings: {'; '.join(problems.values())}", remedy="see docs/serving.md") from None


def _refuse_unknown(environ: Mapping[str, str], known: Collection[str]) -> None:
    problems = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        close = get_close_matches(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1)
        problems.append(f"{variable} is not a setting" + (f" (did you mean {PREFIX}{close[0]}?)" if close else ""))
    if problems:
        raise SettingsError(f"serving settings: {', '.join(problems)}", remedy="see docs/serving.md")
