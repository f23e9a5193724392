"""The wire format: requests, answers and problems.

Needs only pydantic, so that a client can import it. Requests refuse unknown fields and bound every dimension. Answers
always have one shape; a client ignores fields that it does not know, so the server may add some.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

from index.limits import MAX_ID_CHARACTERS, MAX_TITLE_CHARACTERS

MAX_K = 100
MAX_HISTORY = 1000
MAX_EVENTS = 1000
MAX_TIMESTAMP_S = 253_402_300_799  # 9999-12-31T23:59:59Z

# No C0/C1 control characters, no line or paragraph separators: an id is one printable line in every log
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS, pattern=_PRINTABLE)]
Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
Category = Annotated[str, Field(max_length=MAX_TITLE_CHARACTERS)]
CategoryName = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ScoreType(StrEnum):
    """Meaning of an item's score. Higher is better; scores of two types are not comparable.

    * `negative_l2_distance`: minus the L2 distance between the generated title's embedding and the item's.
    * `log_probability`: natural logarithm of the model's probability of the item's title.
    * `fusion`: a weighted sum of log-probability, distance and popularity, or another mixture with popularity.
    * `interaction_count`: interactions with the item's title in the log that the index was built from.
    """

    NEGATIVE_L2_DISTANCE = "negative_l2_distance"
    LOG_PROBABILITY = "log_probability"
    FUSION = "fusion"
    INTERACTION_COUNT = "interaction_count"


class Source(StrEnum):
    """Where an item came from.

    * `generated`: the model wrote its title, or a text that was grounded to it.
    * `neighbour`: the model's titles did not fill the list; this is near the best of them.
    * `popularity`: it is popular; the model wrote neither it nor anything near it.
    """

    GENERATED = "generated"
    NEIGHBOUR = "neighbour"
    POPULARITY = "popularity"


class Match(StrEnum):
    """How the generated text was grounded to an item.

    * `exact`: the item's title equals the text.
    * `constrained`: likewise, and the model could write only titles of the catalog.
    * `nearest`: the item's title is near the text.
    """

    EXACT = "exact"
    CONSTRAINED = "constrained"
    NEAREST = "nearest"


class HistorySource(StrEnum):
    """Where the history came from: the request (`inline`), the `cache`, the event `store`, or nowhere (`none`)."""

    INLINE = "inline"
    CACHE = "cache"
    STORE = "store"
    NONE = "none"


class ArmReason(StrEnum):
    """Why `arm_served` is what it is.

    * `assigned`: the user's own arm answered.
    * `adapter_requested`: the request named its adapter and left the experiment.
    * `no_user`: no `user_id`, so no assignment; the default adapter answered.
    * `no_experiment`: the server runs no experiment; the default adapter answered.
    * `no_history`: the model had no history to read; popularity answered.
    * `empty_generation`: the arm's adapter wrote no title; popularity answered.
    """

    ASSIGNED = "assigned"
    ADAPTER_REQUESTED = "adapter_requested"
    NO_USER = "no_user"
    NO_EXPERIMENT = "no_experiment"
    NO_HISTORY = "no_history"
    EMPTY_GENERATION = "empty_generation"


class Degraded(StrEnum):
    """Every way in which an answer can be less than the caller asked for.

    * `no_history`: the user has no history, or every title in it is longer than the adapter's `max_prompt_tokens`; the
      items are by popularity.
    * `unknown_history`: no entry of the history is in the catalog; the items are by popularity.
    * `empty_generation`: the model wrote no title; the items are by popularity.
    * `unconstrained`: the adapter writes only titles of the catalog, but every allowed one is too long to write; it
      wrote freely, and the items are near its text.
    * `history_cache_unavailable`: Redis did not answer; the event store did.
    * `hallucinated_title`: the model's best title is so far from all others that it probably means no item.
    * `fewer_than_k`: the filters and exclusions left fewer than `k` items.
    * `decision_not_recorded`: the event store did not confirm this decision within 2 s; do not count its exposure.
    * `index_outdated`: the server cannot load the workspace's newest state (another catalog, a damaged journal or index
      version, a full disk); the items are of the catalog in memory.
    """

    NO_HISTORY = "no_history"
    UNKNOWN_HISTORY = "unknown_history"
    EMPTY_GENERATION = "empty_generation"
    UNCONSTRAINED = "unconstrained"
    HISTORY_CACHE_UNAVAILABLE = "history_cache_unavailable"
    HALLUCINATED_TITLE = "hallucinated_title"
    FEWER_THAN_K = "fewer_than_k"
    DECISION_NOT_RECORDED = "decision_not_recorded"
    INDEX_OUTDATED = "index_outdated"


class Filters(_Request):
    """Which items the answer may contain."""

    category: Annotated[list[CategoryName], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="An item passes if it has any of these categories; null: every item passes."
    )
    available_only: StrictBool = Field(default=True, description="Leave out items that the catalog marks unavailable.")


class RecommendRequest(_Request):
    """Ask what comes next for a user, a history, or both."""

    user_id: Id | None = Field(
        default=None,
        description="Names the stored history and decides the experiment's arm. Required without `history`.",
    )
    history: Annotated[list[Title], Field(max_length=MAX_HISTORY)] | None = Field(
        default=None, description="Item ids or titles, oldest first. Replaces the stored history; not stored."
    )
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(default=10, description="How many items to return.")
    exclude_seen: StrictBool = Field(
        default=True, description="Leave out the history's items and items of their titles."
    )
    exclude_item_ids: Annotated[list[Id], Field(max_length=MAX_HISTORY)] = Field(
        default_factory=list, description="Leave out these items, but no others of their titles; ids may be unknown."
    )
    filters: Filters = Field(default_factory=Filters)
    adapter: Id | None = Field(
        default=None, description="An adapter's name or `name@digest` to use outside the experiment; may be forbidden."
    )
    timeout_ms: Annotated[StrictInt, Field(ge=1, le=120_000)] | None = Field(
        default=None, description="Answer 504 after so many milliseconds; null: the server's default."
    )
    explain: StrictBool = Field(default=False, description="Store prompt ids and generated text with the decision.")

    @model_validator(mode="after")
    def _has_a_history(self) -> RecommendRequest:
        if self.user_id is None and self.history is None:
            raise ValueError("give user_id, history, or both")
        return self


class Grounding(_Answer):
    """How the generated text was tied to this item."""

    generation: str = Field(description="The text that the model wrote.")
    match: Match
    distance: float = Field(description="L2 distance between the embeddings of the generation and the item's title.")
    margin: float | None = Field(
        description="Distance from the generation to the catalog's second nearest title minus that to the nearest; "
        "small means doubtful. Null in a catalog of one title, and for all but the best generation."
    )
    log_prob: float | None = Field(
        description="Natural logarithm of the model's probability of the item's title, not divided by its length and "
        "not renormalised over the catalog. Null if the model did not write it."
    )
    ambiguity: int = Field(ge=1, description="How many items have this title; the model cannot tell them apart.")


class RecommendedItem(_Answer):
    """One item of the answer."""

    item_id: str
    title: str
    rank: int = Field(ge=1, description="Position in this answer, from 1.")
    score: float = Field(description="Higher is better; its meaning is `score_type`.")
    score_type: ScoreType
    source: Source
    grounding: Grounding | None = Field(description="Null where `source` is `popularity`.")


class Experiment(_Answer):
    """Which arm the user belongs to and which arm answered."""

    id: str | None = Field(description="Null when the server runs no experiment.")
    arm_assigned: str | None = Field(description="The user's sticky arm; null without user_id or experiment.")
    arm_served: str | None = Field(description="The arm whose adapter answered as part of the experiment, or null.")
    reason: ArmReason


class IndexUsed(_Answer):
    """The index that grounded the answer."""

    version: str = Field(description="An index version, and after `+` the number of catalog changes on top of it.")
    encoder: str


class HistoryUsed(_Answer):
    """How the history's entries were used: used + dropped + unknown is their number."""

    source: HistorySource
    used: int = Field(ge=0, description="Entries that the model read (0 when popularity answered, or nothing could).")
    dropped: int = Field(ge=0, description="Known entries that the prompt did not hold: the oldest, or too long ones.")
    unknown: int = Field(ge=0, description="Entries that are neither an item id nor a title of the catalog.")


class Usage(_Answer):
    """Tokens of this answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class Timings(_Answer):
    """Milliseconds spent in each stage; 0 for a stage that did not run."""

    history: float = Field(ge=0, description="Reading the cache or the event store.")
    prompt: float = Field(ge=0, description="Rendering the prompt to token ids.")
    queue: float = Field(ge=0, description="Waiting for the engine.")
    generate: float = Field(ge=0, description="Generation by the engine.")
    ground: float = Field(ge=0, description="Encoding, search and filters, including the wait for the encoder.")
    record: float = Field(ge=0, description="Writing the decision to the event store.")
    total: float = Field(ge=0, description="From the validated request to the finished answer.")


class RecommendResponse(_Answer):
    """Recommended items, and how the answer was made."""

    request_id: str
    items: list[RecommendedItem]
    adapter: str | None = Field(description="`name@digest` of the adapter that wrote; null for a popularity answer.")
    experiment: Experiment
    index: IndexUsed
    history: HistoryUsed
    degraded: list[Degraded]
    usage: Usage
    timings_ms: Timings


class EventType(StrEnum):
    """What happened. `interaction` and `purchase` enter the user's history, `impression` and `click` do not."""

    IMPRESSION = "impression"
    CLICK = "click"
    PURCHASE = "purchase"
    INTERACTION = "interaction"


class Event(_Request):
    """One action of a user, or one thing shown to a user."""

    event_id: Id = Field(description="The caller's own id; a second event with the same one counts as a duplicate.")
    user_id: Id
    item_id: Id
    type: EventType
    timestamp: Annotated[StrictInt, Field(ge=0, le=MAX_TIMESTAMP_S)] | None = Field(
        default=None, description="Unix time in seconds; null takes the time of arrival."
    )
    request_id: Id | None = Field(default=None, description="The `/recommend` answer that this event follows.")


class EventsRequest(_Request):
    """A batch of events; the server stores the valid ones even if it rejects others."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)]


class RejectedEvent(_Answer):
    """An event that was not stored, and why."""

    position: int = Field(ge=0, description="Index in the request's `events`, from 0.")
    event_id: str
    code: str
    reason: str


class EventsResponse(_Answer):
    """Outcome of a batch: accepted + duplicates + len(rejected) is its size."""

    accepted: int = Field(ge=0)
    duplicates: int = Field(ge=0, description="Already stored under the same event_id, or twice in this batch.")
    rejected: list[RejectedEvent]
    degraded: list[Degraded]


class ItemBody(_Request):
    """A whole item."""

    title: Title
    category: Category = Field(default="", description="Several are separated by `|`; empty: unknown.")
    available: StrictBool = True


class ItemPatch(_Request):
    """Fields to change; those that are null or left out stay. `{"available": false}` hides the item."""

    title: Title | None = None
    category: Category | None = None
    available: StrictBool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ItemPatch:
        if self.title is None and self.category is None and self.available is None:
            raise ValueError("give title, category or available")
        return self


class ItemState(StrEnum):
    """Outcome of an item change. `unchanged`: the catalog already said so, and nothing was written."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


class ItemWarning(_Answer):
    """A warning about a change that was made.

    * `shared_title`: other items have this title; the model cannot tell them apart, they follow each other in answers.
    * `near_title`: another title's vector is so near that hardly any generation tells the two apart.
    * `index_outdated`: the change is on disk, but the server cannot load it now (a full disk, say) and tries again.
    """

    code: str
    reason: str


class ItemResponse(_Answer):
    """An item after its change; the next `/recommend` uses it."""

    item_id: str
    title: str
    category: str
    available: bool
    state: ItemState
    row: int = Field(ge=0, description="The row of its title in the index.")
    index: IndexUsed
    warnings: list[ItemWarning]


class LiveResponse(_Answer):
    """The process runs."""

    status: str = "live"


class ReadyResponse(_Answer):
    """The server can answer `/recommend` with its model."""

    status: str = "ready"
    adapters: list[str] = Field(description="Ids of the adapters that proved their effect at start.")
    experiment: str | None
    index: IndexUsed
    degraded: list[Degraded]


class FieldProblem(_Answer):
    """One invalid field of a request."""

    path: str = Field(description="Where in the request, for instance `body.filters.category.0`.")
    reason: str


class Problem(_Answer):
    """Every error's body (RFC 9457, `application/problem+json`)."""

    type: str = Field(default="about:blank", description="RFC 9457; programs should read `code`.")
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = Field(description="The same request may succeed later.")
    request_id: str
    errors: list[FieldProblem] = Field(default_factory=list)
