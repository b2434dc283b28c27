"""Times as they are shown."""


def clock(seconds: float) -> str:
    """A time as it is shown: ``1:02``, ``3:04:05``, ``2 days 3:04:05``."""
    days, rest = divmod(int(min(seconds, 1e9)), 86400)
    hours, rest = divmod(rest, 3600)
    text = f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours or days else f"{rest // 60}:{rest % 60:02}"
    return f"{days} day{'s' if days > 1 else ''} {text}" if days else text
