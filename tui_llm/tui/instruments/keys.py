"""The scopes of the instruments' screens, by which their commands and bindings are found."""

from __future__ import annotations

MERGES, VOCABULARIES, LETTERS, PAIRS, SWAP = "merges", "vocabularies", "letters", "pairs", "swap"  # full screens
