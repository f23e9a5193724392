"""A model of which every process holds but a shard (FSDP 2), made whole where it has to be.

FSDP gathers a layer's weights when the layer runs and frees them after it. All processes have to run the same layers in
the same order, then; titles end after different numbers of tokens. So while a model writes, its weights stay whole.
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


def choose_layers(accelerator: Accelerator, scorer: Any) -> None:
    """Let FSDP shard layer by layer, whatever the base calls its layers; a launch configuration that names them rules.

    To be called before `accelerator.prepare`, which looks for the names on the outermost module only.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        named = (getattr(module, "_no_split_modules", None) for module in scorer.modules())
        plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or next(filter(None, named), None)


class Shards:
    """The FSDP modules of a prepared scorer. Without FSDP there are none, and everything here does nothing."""

    def __init__(self, accelerator: Accelerator, scorer: Any) -> None:
        self._root = scorer
        self._modules = [module for module in scorer.modules() if isinstance(module, FSDPModule)]
        if self._modules:
            self._frees_after_forward = bool(accelerator.state.fsdp_plugin.reshard_after_forward)
            self._name_root()

    def _name_root(self) -> None:
        """Show FSDP the outermost module: it takes the first that runs for it, and a measurement runs layers only."""
        self._root.nothing = lambda: None
        register_fsdp_forward_method(self._root, "nothing")
        self._root.nothing()
        self._root.reset_iter_state()

    def gather(self) -> None:
        """Hold all weights whole on every process, until `release`. Every process has to call it."""
        for module in self._modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()

    def release(self) -> None:
        """Hold shards only: what a process changed in its whole weights is gone."""
        for module in self._modules:
            # the root's weights are needed again as soon as its forward ends
            module.set_reshard_after_forward(self._frees_after_forward and module is not self._root, recurse=False)
        if self._modules:
            # frees, and forgets in which order the layers ran: the next backward would gather by that order, which
            # processes that wrote no title do not share
            self._root.reset_iter_state()


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return the tensor of which this process may hold but a shard; then every process has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_as(pattern: Tensor, tensor: Tensor) -> Tensor:
    """Return the whole tensor on the pattern's device, sharded if the pattern is."""
    tensor = tensor.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    return tensor
