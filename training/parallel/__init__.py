"""One run in several processes: DDP, FSDP 2, DeepSpeed ZeRO."""
