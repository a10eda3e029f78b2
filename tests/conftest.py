import os

from hypothesis import settings

# Pictures are drawn to files here; a test must not look for a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# Everywhere the same examples, so that a red test is red for everybody; `make verify` draws fresh
# ones. No deadline: the first example pays for compiling.
settings.register_profile("fixed", derandomize=True, max_examples=100, deadline=None, database=None)
settings.register_profile("verify", max_examples=2_000, deadline=None)
settings.load_profile("fixed")
