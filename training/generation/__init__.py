"""Titles out of a model: beam search over transformers, or above a vLLM engine."""
