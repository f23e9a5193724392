"""Requests: recommend and events over HTTP, from the engine up."""
