"""HTTP from both ends: the typed client, and the process that serves.

In: requests of `serving.schema`. Out: answers or a `ClientError`. The client needs pydantic and httpx alone.
"""
