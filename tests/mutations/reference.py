"""The reference results of transformers for a model folder: the ids of a text and the last position's logits.

It has none of this package's checks, so it runs only in a child with limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.mutations import forked

TEXT = "The cat"
_CLOSE = 2e-3  # relative to the largest logit


def checker(path: Path, tokens: bool = True, chat: bool = False) -> Callable[[Any], str]:
    """Returns a check of `logits --json` against transformers. What transformers can't open passes the check.

    `tokens`: whether transformers' own tokenizer must give the same ids. `chat`: of the text as a message in the folder's chat
    template.
    """

    def check(answer: Any) -> str:
        ids = answer["prompt_ids"]
        ending = forked.run(lambda: _answer(path, ids, tokens, chat))
        if ending.code != 0:
            return f"unconfirmed: transformers ends with {ending.code}: {(ending.err.strip().splitlines() or [''])[-1][:200]}"
        theirs = json.loads(ending.out)
        if tokens and theirs["ids"] != ids:
            return f"ids {ids}, transformers has {theirs['ids']}"
        logits = theirs["logits"]
        close = _CLOSE * max(1e-3, *map(abs, logits))
        for row in answer["candidates"]:
            if abs(row["logit"] - logits[row["id"]]) > close:
                return f"token {row['id']} has the logit {row['logit']}, transformers' is {logits[row['id']]}"
        return ""

    return check


def _answer(path: Path, ids: list[int], tokens: bool, chat: bool) -> int:
    import torch
    import transformers

    where, how = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    with torch.inference_mode():
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            where, local_files_only=True, dtype=torch.float32, **how
        )
        logits = model.eval()(torch.tensor([ids])).logits[0, -1]
    theirs = list(ids)
    if tokens:
        vocabulary: Any = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True, **how)
        if chat:
            message = [{"role": "user", "content": TEXT}]
            theirs = list(vocabulary.apply_chat_template(message, add_generation_prompt=True, return_dict=False))
        else:
            theirs = vocabulary(TEXT, add_special_tokens=False)["input_ids"]
    print(json.dumps({"ids": theirs, "logits": logits.tolist()}))
    return 0
