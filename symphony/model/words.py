"""The nearest valid word: every message about an unknown name ends with it."""

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, or None if none is near. Cost: difflib over the choices; call it on errors only."""
    from difflib import get_close_matches

    known = list(choices)
    lower = {choice.lower(): choice for choice in known}
    found = get_close_matches(word.lower(), list(lower), n=1, cutoff=0.55)
    return lower[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a message: "; did you mean 'x'?", or the list of choices when none is near and they are few."""
    known = list(choices)
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    if 0 < len(known) <= 12:
        return f"; there are: {', '.join(sorted(known))}"
    return ""
