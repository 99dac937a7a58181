"""Facts about a checkpoint file from its header, without its tensors. No torch here."""

from __future__ import annotations

from pathlib import Path

from tui_llm.llm.formats import detect, llama2_c_header, llm_c_header, nanochat_meta


def described(path: Path) -> tuple[int | None, int | None, int | None]:
    """(parameters, context, vocabulary) of a checkpoint file, each None if unknown: nanoGPT's are in a pickle, which is
    not read for a list. Raises `UserError` if it can't be opened."""
    kind = detect.format_of(path)
    if kind == detect.LLM_C:
        config = llm_c_header.read_header(path).config
        return config.parameters(), config.context, config.vocabulary
    if kind == detect.LLAMA2_C:
        header = llama2_c_header.read_header(path)
        return header.parameters(), header.context, header.vocabulary
    if kind == detect.NANOCHAT:
        meta = nanochat_meta.read_meta(path)
        return None, meta.context, meta.vocabulary
    return None, None, None
