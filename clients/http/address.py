"""Where a server listens unless told otherwise, and so where a client looks for it."""

HOST = "127.0.0.1"
PORT = 8000
DEFAULT_URL = f"http://{HOST}:{PORT}"
