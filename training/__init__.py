"""Learning: from an interaction log to proven LoRA adapters."""
