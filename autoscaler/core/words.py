"""What was probably meant by a word that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_LISTED = 20


def nearest(word: str, known: Iterable[str], otherwise: str = "allowed") -> str:
    """Suggest what was meant, or list what there is: ``did you mean 'web'?``, ``allowed: db, web``."""
    names = {name.lower(): name for name in sorted(known)}
    near = get_close_matches(word.lower(), names, n=1)
    if near:
        return f"did you mean '{names[near[0]]}'?"
    listed = ", ".join(list(names.values())[:_MOST_LISTED])
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{otherwise}: {listed or 'none'}{more}"
