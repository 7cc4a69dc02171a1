"""Property tests here assert no time: a busy machine may take what it takes."""

from hypothesis import settings

settings.register_profile("patient", deadline=None, print_blob=True)
settings.load_profile("patient")
