"""What every test shares."""

from hypothesis import settings

# The machine is shared with a broker and whatever else runs on it: how long one example takes says nothing.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
