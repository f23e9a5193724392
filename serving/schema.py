"""The wire: what a request may hold and what an answer always holds.

Needs pydantic alone, so that a client can import it. Requests refuse unknown fields and are bounded in every
dimension; answers always have the same shape (an unknown user gets a labelled popularity answer, not another form).
A client ignores answer fields that it does not know, so the server may add some.
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
IdOrTitle = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE_CHARACTERS)]
Category = Annotated[str, Field(max_length=MAX_TITLE_CHARACTERS)]
CategoryName = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ScoreType(StrEnum):
    """What an item's score is; scores of two types are not comparable. Higher is better in each.

    * `negative_l2_distance`: minus the L2 distance between the generated title's embedding and the item's.
    * `log_probability`: natural logarithm of the probability that the model writes the item's title.
    * `fusion`: a weighted sum of log-probability, distance and popularity, or another mixture with popularity.
    * `interaction_count`: interactions with the item's title in the log that the index was built from.
    """

    NEGATIVE_L2_DISTANCE = "negative_l2_distance"
    LOG_PROBABILITY = "log_probability"
    FUSION = "fusion"
    INTERACTION_COUNT = "interaction_count"


class Source(StrEnum):
    """Where an item came from.

    * `generated`: the model wrote it, or what it wrote was grounded to it.
    * `neighbour`: the model's titles did not fill the list; it lies near the best of them.
    * `popularity`: it is popular. The model wrote neither it nor anything near it.
    """

    GENERATED = "generated"
    NEIGHBOUR = "neighbour"
    POPULARITY = "popularity"


class Match(StrEnum):
    """How an item was tied to the generated title.

    * `exact`: its title is that text.
    * `constrained`: its title is that text, and the model could write nothing but titles of the catalog.
    * `nearest`: its title lies near that text.
    """

    EXACT = "exact"
    CONSTRAINED = "constrained"
    NEAREST = "nearest"


class HistorySource(StrEnum):
    """Where the history came from: the request (`inline`), the `cache`, the event `store`, or `none` was asked."""

    INLINE = "inline"
    CACHE = "cache"
    STORE = "store"
    NONE = "none"


class ArmReason(StrEnum):
    """Why `arm_served` is what it is.

    * `assigned`: the user's own arm answered.
    * `adapter_requested`: the request named its adapter and left the experiment.
    * `no_user`: no `user_id`, so nobody to assign; the default adapter answered.
    * `no_experiment`: the server runs no experiment; the default adapter answered.
    * `no_history`: nothing for the model to read; popularity answered.
    * `empty_generation`: the arm's adapter wrote no title; popularity answered.
    """

    ASSIGNED = "assigned"
    ADAPTER_REQUESTED = "adapter_requested"
    NO_USER = "no_user"
    NO_EXPERIMENT = "no_experiment"
    NO_HISTORY = "no_history"
    EMPTY_GENERATION = "empty_generation"


class Degraded(StrEnum):
    """Every way in which an answer can be less than asked for.

    * `no_history`: the user has no history, or each title of it is alone longer than the adapter's
      `max_prompt_tokens`; the items are by popularity.
    * `unknown_history`: there is a history, but none of it is in the catalog; the items are by popularity.
    * `empty_generation`: the model wrote no title; the items are by popularity.
    * `unconfined`: the adapter writes titles of the catalog only, but all that may be given are too long to be written;
      it wrote freely, and the items are near what it wrote.
    * `history_cache_unavailable`: Redis did not answer; the event store did.
    * `hallucinated_title`: the best title that the model wrote lies so far from the catalog that it probably means no
      item of it; the items are its nearest all the same.
    * `fewer_than_k`: the filters and exclusions left fewer than `k` items.
    * `decision_not_recorded`: the event store did not confirm within 2 s that it holds this decision; do not count its
      exposure.
    * `index_outdated`: the workspace holds another catalog, or a damaged journal or index version, that cannot be taken
      up, or a full disk keeps its newest state from being prepared; the items are of the catalog in memory.
    """

    NO_HISTORY = "no_history"
    UNKNOWN_HISTORY = "unknown_history"
    EMPTY_GENERATION = "empty_generation"
    UNCONFINED = "unconfined"
    HISTORY_CACHE_UNAVAILABLE = "history_cache_unavailable"
    HALLUCINATED_TITLE = "hallucinated_title"
    FEWER_THAN_K = "fewer_than_k"
    DECISION_NOT_RECORDED = "decision_not_recorded"
    INDEX_OUTDATED = "index_outdated"


class Filters(_Request):
    """Which items may be recommended at all."""

    category: Annotated[list[CategoryName], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="An item passes when it has any of these categories; null lets all pass."
    )
    available_only: StrictBool = Field(default=True, description="Leave out items that the catalog marks unavailable.")


class RecommendRequest(_Request):
    """Ask what comes next for a user, a history, or both."""

    user_id: Id | None = Field(
        default=None, description="Names the stored history and decides the experiment's arm. Needed if no `history`."
    )
    history: Annotated[list[IdOrTitle], Field(max_length=MAX_HISTORY)] | None = Field(
        default=None,
        description="Item ids or titles, oldest first. Read instead of the stored history; it is not stored.",
    )
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(default=10, description="How many items to return.")
    exclude_seen: StrictBool = Field(
        default=True, description="Leave out the items of the history, and every item that shares a title with one."
    )
    exclude_item_ids: Annotated[list[Id], Field(max_length=MAX_HISTORY)] = Field(
        default_factory=list,
        description="Leave out these items too, but no others of their titles; unknown ids are allowed.",
    )
    filters: Filters = Field(default_factory=Filters)
    adapter: Id | None = Field(
        default=None,
        description="An adapter's name or `name@digest`: use it and leave the experiment. Needs permission (403).",
    )
    timeout_ms: Annotated[StrictInt, Field(ge=1, le=120_000)] | None = Field(
        default=None, description="Give up with 504 after so many milliseconds; null takes the server's default."
    )
    explain: StrictBool = Field(
        default=False,
        description="Keep the prompt's token ids and the generated text with the stored decision.",
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> RecommendRequest:
        if self.user_id is None and self.history is None:
            raise ValueError("give user_id, history, or both")
        return self


class Grounding(_Answer):
    """How the generated text was tied to this item."""

    generation: str = Field(description="The title as the model wrote it.")
    match: Match
    distance: float = Field(
        description="L2 distance between the generation's embedding and the item title's; 0 where they are the same."
    )
    margin: float | None = Field(
        description="Distance from the generation to the catalog's second nearest title minus that to the nearest; "
        "small means doubtful. Null in a catalog of one title, and where it was not measured: it is for the best title."
    )
    log_prob: float | None = Field(
        description="Natural logarithm of the probability that the model writes the item's title, not divided by its "
        "length and not renormalised over the catalog. Null where it was not written."
    )
    ambiguity: int = Field(
        ge=1, description="How many items of the catalog have this title; the model cannot tell them apart."
    )


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
    """Which arm the user belongs to and which one answered."""

    id: str | None = Field(description="Null when the server runs no experiment.")
    arm_assigned: str | None = Field(description="The user's sticky arm; null without user_id or experiment.")
    arm_served: str | None = Field(description="The arm whose adapter answered as part of the experiment, or null.")
    reason: ArmReason


class IndexUsed(_Answer):
    """The index that grounded the answer."""

    version: str = Field(
        description="A build, and after `+` the number of the catalog's changes that it shows; none without `+`."
    )
    encoder: str


class HistoryUsed(_Answer):
    """What became of the history's entries: used + dropped + unknown is their number."""

    source: HistorySource
    used: int = Field(ge=0, description="Entries that the model read (0 when popularity answered, or nothing could).")
    dropped: int = Field(ge=0, description="Known entries that the model did not read: the oldest, beyond the prompt.")
    unknown: int = Field(ge=0, description="Entries that are neither an item id nor a title of the catalog.")


class Usage(_Answer):
    """Tokens of this answer."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class Timings(_Answer):
    """Milliseconds spent in each stage; 0 for a stage that did not run."""

    history: float = Field(ge=0, description="Reading the cache or the event store.")
    prompt: float = Field(ge=0, description="Rendering the prompt to token ids.")
    queue: float = Field(ge=0, description="Waiting for a place in the engine.")
    generate: float = Field(ge=0, description="Generation by the engine.")
    ground: float = Field(ge=0, description="Encoding, search and filters, with the wait for the encoder.")
    record: float = Field(ge=0, description="Writing the decision to the event store.")
    total: float = Field(ge=0, description="From the validated request to the finished answer.")


class RecommendResponse(_Answer):
    """What comes next, and how the answer came about."""

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
    """One thing a user did or was shown."""

    event_id: Id = Field(description="The caller's own id; a second event with the same one counts as a duplicate.")
    user_id: Id
    item_id: Id
    type: EventType
    timestamp: Annotated[StrictInt, Field(ge=0, le=MAX_TIMESTAMP_S)] | None = Field(
        default=None, description="Unix time in seconds; null takes the time of arrival."
    )
    request_id: Id | None = Field(default=None, description="The `/recommend` answer that this event follows.")


class EventsRequest(_Request):
    """A batch of events; good ones are taken even if others are rejected."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)]


class RejectedEvent(_Answer):
    """An event that was not taken, and why."""

    position: int = Field(ge=0, description="Index in the request's `events`, from 0.")
    event_id: str
    code: str
    reason: str


class EventsResponse(_Answer):
    """What became of a batch: accepted + duplicates + len(rejected) is its size."""

    accepted: int = Field(ge=0)
    duplicates: int = Field(ge=0, description="Already stored under the same event_id, or twice in this batch.")
    rejected: list[RejectedEvent]
    degraded: list[Degraded]


class ItemBody(_Request):
    """A whole item."""

    title: Title
    category: Category = Field(default="", description="Several are separated by `|`; empty: none is known.")
    available: StrictBool = True


class ItemPatch(_Request):
    """What changes of an item; null or left out: stays. `{"available": false}` hides it."""

    title: Title | None = None
    category: Category | None = None
    available: StrictBool | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ItemPatch:
        if self.title is None and self.category is None and self.available is None:
            raise ValueError("give title, category or available")
        return self


class ItemState(StrEnum):
    """What became of an item. `unchanged`: the catalog said so already, nothing was written."""

    ADDED = "added"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


class ItemWarning(_Answer):
    """Something to know of a title. The change was made all the same.

    * `shared_title`: other items have this title; the model cannot tell them apart, they follow each other in answers.
    * `near_title`: another title's vector is so near that hardly any generation tells the two apart.
    * `index_outdated`: the change is on disk, but its view cannot be prepared now (a full disk, say); `/recommend`
      knows of it as soon as that succeeds.
    """

    code: str
    reason: str


class ItemResponse(_Answer):
    """What became of an item; the next `/recommend` knows of it."""

    item_id: str
    title: str
    category: str
    available: bool
    state: ItemState
    row: int = Field(ge=0, description="The row of the index that its title has, or had.")
    index: IndexUsed
    warnings: list[ItemWarning]


class LiveResponse(_Answer):
    """The process answers."""

    status: str = "live"


class ReadyResponse(_Answer):
    """The server can answer `/recommend` with its model."""

    status: str = "ready"
    adapters: list[str] = Field(description="Ids of the adapters that proved their effect at start.")
    experiment: str | None
    index: IndexUsed
    degraded: list[Degraded]


class FieldProblem(_Answer):
    """One field of a request that was refused."""

    path: str = Field(description="Where in the request, for instance `body.filters.category.0`.")
    reason: str


class Problem(_Answer):
    """Every error's body (RFC 9457, `application/problem+json`)."""

    type: str = Field(default="about:blank", description="RFC 9457; `code` is what a program should look at.")
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = Field(description="The same request may succeed later.")
    request_id: str
    errors: list[FieldProblem] = Field(default_factory=list)
