"""privset: private set generation, its privacy accounting and its evaluation. The workflow's rules call this library."""


class PrivsetError(ValueError):
    """A mistake that the user can mend. The message is one line that names the thing and the remedy."""
