"""The index measured against raw FAISS and raw sentence-transformers: `python -m benchmarks.index.search`."""
