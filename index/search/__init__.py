"""Vectors -> nearest rows, exactly or by codes; titles -> vectors.

In: float32 vectors or titles. Out: L2 distances (roots, not squares) and rows. Knows no catalog; every faiss import
is here.
"""
