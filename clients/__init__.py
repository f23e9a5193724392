"""What people touch: the command line, the HTTP client, the demo shop."""
