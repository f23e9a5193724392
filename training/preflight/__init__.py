"""What a run would be like, before it starts.

In: settings and data. Out: lengths, samples, time and memory. The top layer of `training`.
"""
