"""The one prompt: history -> token ids, and title <- generated ids.

Training, distillation, evaluation and serving all render through this module, piece by piece: every fixed piece and
every title is tokenized alone and the ids are joined, so a title has the same ids wherever it stands and is tokenized
once.

    head  title  separator  title  ...  tail  |  title  close  end
    ------------------ prompt -------------   |  -- completion --

The form is Alpaca's, as in SOFT (arXiv:2505.20771, appendix). One deviation: the response's opening quote belongs to
the prompt. It is the same in every response, so it teaches nothing and would cost a decoding step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from index.artifact import file_digest, text_digest
from index.errors import MissingArtifactError, SoftrecError


@dataclass(frozen=True)
class PromptTemplate:
    """What a prompt says and how long it may be. Stored with every adapter.

    Attributes:
        noun: what is recommended, singular: "movie".
        verb: what the user did with it, past participle: "watched".
        max_history: most titles of history; the oldest go first.
        max_prompt_tokens: most tokens of a prompt; whole titles go, never half a title: those that alone are too
            long, then the oldest.
        max_title_tokens: longest title that is learned or written, in tokens without quote and end.
    """

    noun: str = "item"
    verb: str = "bought"
    max_history: int = 10
    max_prompt_tokens: int = 768
    max_title_tokens: int = 64

    @property
    def head(self) -> str:
        return (
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n### Instruction:\n"
            f"Given a list of {self.noun}s the user has {self.verb} before, recommend one new {self.noun} "
            f'that the user will like.\n\n### Input:\nThe user has {self.verb} the following {self.noun}s before: "'
        )

    separator = '", "'
    tail = '"\n\n### Response:\n"'
    close = '"'

    @property
    def pieces(self) -> tuple[str, ...]:
        """The fixed pieces, in the order of the picture above."""
        return self.head, self.separator, self.tail, self.close

    @cached_property
    def digest(self) -> str:
        return text_digest(*self.pieces, json.dumps(asdict(self), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> PromptTemplate:
        return cls(**content)


class TitleTokenizer:
    """A base model's tokenizer, without transformers.

    Special tokens inside a title are read as plain text, so no title can forge a part of the prompt.
    """

    def __init__(self, file: Path) -> None:
        self._pieces = Tokenizer.from_file(str(file))
        self._titles = Tokenizer.from_file(str(file))
        self._titles.encode_special_tokens = True
        self.digest = file_digest(file)

    @classmethod
    def load(cls, base_dir: Path) -> TitleTokenizer:
        """Load `tokenizer.json` of a base model's folder."""
        file = base_dir / "tokenizer.json"
        if not file.is_file():
            raise MissingArtifactError("tokenizer", file, command="softrec base SHOP")
        return cls(file)

    @cached_property
    def start_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text: the begin token where it has one."""
        return tuple(self._pieces.encode("", add_special_tokens=True).ids)

    def piece_ids(self, text: str) -> tuple[int, ...]:
        """Ids of a fixed piece of the prompt; special tokens count as such."""
        return tuple(self._pieces.encode(text, add_special_tokens=False).ids)

    def title_ids(self, text: str) -> tuple[int, ...]:
        """Ids of a title; special tokens in it are plain text."""
        return tuple(self._titles.encode(text, add_special_tokens=False).ids)

    def text(self, ids: Sequence[int]) -> str:
        return str(self._titles.decode(list(ids), skip_special_tokens=False))


@dataclass(frozen=True)
class Prompt:
    """A rendered history.

    Attributes:
        ids: token ids, the begin token included.
        used: titles of history in it.
        dropped: titles left out because they did not fit or there were too many.
    """

    ids: tuple[int, ...]
    used: int
    dropped: int


class PromptRenderer:
    """Renders histories for one tokenizer. Titles' ids are cached, so a catalog is tokenized once.

    Args:
        template: what the prompt says.
        tokenizer: the base model's.
        end_id: the base model's end-of-text token; it ends a completion.
    """

    def __init__(self, template: PromptTemplate, tokenizer: TitleTokenizer, end_id: int) -> None:
        self.template = template
        self.tokenizer = tokenizer
        self.end_id = end_id
        self._head = tokenizer.start_ids + tokenizer.piece_ids(template.head)
        self._separator, self._tail, self._close = (tokenizer.piece_ids(piece) for piece in template.pieces[1:])
        self._title_ids: dict[str, tuple[int, ...]] = {}
        self._room = template.max_prompt_tokens - len(self._head) - len(self._tail)  # tokens for the whole history
        if self._room <= 0:
            raise SoftrecError(
                f"max_prompt_tokens is {template.max_prompt_tokens}, "
                f"but the prompt without any title takes {len(self._head) + len(self._tail)}",
                remedy="raise max_prompt_tokens",
            )

    def render(self, history_titles: Sequence[str]) -> Prompt:
        """Render a history, oldest title first.

        A title that alone exceeds `max_prompt_tokens` is skipped. Of the others the newest `max_history` are taken,
        newest first, for as long as they fit together; the rest is dropped. Skipped and dropped ones are counted. Where
        nothing is left, the prompt has an empty quote and `used` is 0: it is not one to answer or to learn from.
        """
        room = self._room
        chosen: list[tuple[int, ...]] = []
        for title in reversed(history_titles):
            if len(chosen) == self.template.max_history:
                break
            ids = self.title_ids(title)
            if len(ids) > self._room:
                continue
            needed = len(ids) + (len(self._separator) if chosen else 0)
            if needed > room:
                break
            room -= needed
            chosen.append(ids)
        prompt = list(self._head)
        for position, title_ids in enumerate(reversed(chosen)):
            prompt.extend(self._separator if position else ())
            prompt.extend(title_ids)
        prompt.extend(self._tail)
        return Prompt(tuple(prompt), used=len(chosen), dropped=len(history_titles) - len(chosen))

    def title_ids(self, title: str) -> tuple[int, ...]:
        ids = self._title_ids.get(title)
        if ids is None:
            ids = self._title_ids[title] = self.tokenizer.title_ids(title)
        return ids

    def completion_ids(self, title: str) -> tuple[int, ...]:
        """Ids of the answer: the title, the closing quote, the end token."""
        return (*self.title_ids(title), *self._close, self.end_id)

    @cached_property
    def tokenization_digest(self) -> str:
        """Identity of how titles are written, for the title trie: tokenizer, what ends a title, the longest title."""
        return text_digest(self.tokenizer.digest, str((*self._close, self.end_id)), str(self.template.max_title_tokens))

    @property
    def max_new_tokens(self) -> int:
        """Decoding steps that the longest allowed title needs."""
        return self.template.max_title_tokens + len(self._close) + 1

    def fits(self, title: str) -> bool:
        """Whether the title is short enough to be written in `max_new_tokens` steps."""
        return len(self.title_ids(title)) <= self.template.max_title_tokens

    def fits_prompt(self, title: str) -> bool:
        """Whether the title, as the only one of a history, is short enough to be read in `max_prompt_tokens`."""
        return len(self.title_ids(title)) <= self._room

    def parse(self, ids: Sequence[int]) -> str:
        """Read the title out of generated ids: up to the end token, without the closing quote.

        The law: parse(completion_ids(title)) == title, for a tokenizer that round-trips.
        """
        ids = list(ids)
        if self.end_id in ids:
            ids = ids[: ids.index(self.end_id)]
        if len(self._close) and tuple(ids[-len(self._close) :]) == self._close:
            ids = ids[: -len(self._close)]
        return self.tokenizer.text(ids)
