"""The one exception that means "the user asked for something that can't be": entry points print it as one line."""


class ConfigError(ValueError):
    """A bad value: the message is one line that names the key, the value and what is allowed."""
