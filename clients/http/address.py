"""Default address of a server, for servers and clients."""

HOST = "127.0.0.1"
PORT = 8000
DEFAULT_URL = f"http://{HOST}:{PORT}"
