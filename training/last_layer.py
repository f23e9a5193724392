"""The last layer's feed-forward, at the tokens that are read and nowhere else.

What a model makes of most tokens of a prompt matters to later tokens only, through keys and values. The last layer's
feed-forward comes after its keys and values: nobody reads it at the prompt's tokens, and with few layers it is a good
part of the work. It works token by token, so leaving tokens out changes nothing at the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def reading_only(transformer: Any, places: Tensor) -> Iterator[None]:
    """Within the context, the transformer's output is right at `places` alone; elsewhere a part of it is missing.

    A last layer without a module `mlp` that takes hidden states and nothing else is left as it is: right everywhere.

    Args:
        transformer: without head, called in the context with input_ids [B, T].
        places: int64 [n], positions in [B * T], each once.
    """
    feed_forward = getattr(transformer.layers[-1], "mlp", None)
    if feed_forward is None:
        yield
        return
    everywhere: list[Tensor] = []  # the feed-forward's input [B, T, H], while it runs on a part of it

    def take(_: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[Any, Any] | None:
        if len(args) != 1 or options:
            return None
        everywhere.append(args[0])
        return (args[0].flatten(0, -2)[None, places],), options

    def put_back(_: Any, args: tuple[Any, ...], output: Any) -> Any:
        if not everywhere:
            return None
        states = everywhere.pop()
        part, *others = output if isinstance(output, tuple) else (output,)
        whole = states.new_zeros(states.shape).flatten(0, -2).index_copy(0, places, part[0]).view(states.shape)
        return (whole, *others) if others else whole

    hooks = [
        feed_forward.register_forward_pre_hook(take, with_kwargs=True),
        feed_forward.register_forward_hook(put_back),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
