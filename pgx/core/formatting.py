"""Numbers as text for people."""


def shown(value: float) -> str:
    """A return or length for people: one decimal, and three digits that count where it is small."""
    return f"{value:,.1f}" if abs(value) >= 10 or value == 0 else f"{value:.3g}"
