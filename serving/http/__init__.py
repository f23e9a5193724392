"""HTTP around the service.

In: requests. Out: answers and problem documents. The top layer of `serving`; nothing else imports it.
"""
