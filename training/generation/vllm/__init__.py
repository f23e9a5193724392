"""Free titles by a vLLM engine in a process of its own.

In: prompts and a LoRA folder. Out: what `training.generation.beam` writes. Only `engine` imports vllm.
"""
