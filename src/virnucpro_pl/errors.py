"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in the input, the configuration or the files given.

    The command line prints the message as one line and exits with status 2, so a message says what is wrong, where,
    and how to mend it.
    """
