"""The inference engine, and how titles are written with it.

In: prompt ids, a LoRA, the titles that are allowed. Out: titles with log-probabilities. Imports vllm; knows no
catalog rules.
"""
