"""One file per verb of `softrec`.

In: parsed options. Out: printed tables and files. No command imports another but for what its module docstring says.
"""
