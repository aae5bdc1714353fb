"""What was probably meant by a word that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], otherwise: str = "allowed") -> str:
    """Suggest what was meant, or list what there is: ``did you mean 'web'?``, ``allowed: db, web``."""
    names = {name.lower(): name for name in sorted(known)}
    near = get_close_matches(word.lower(), names, n=1)
    return f"did you mean '{names[near[0]]}'?" if near else f"{otherwise}: {', '.join(names.values()) or 'none'}"
