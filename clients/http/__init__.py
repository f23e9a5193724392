"""HTTP on both sides: the typed client and the server's process.

In: requests of `serving.schema`. Out: answers or a `ClientError`. The client needs only pydantic and httpx.
"""
