"""Several continuations in one forward pass, against transformers on each of them alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tui_llm.llm.model import checkpoint
from tui_llm.llm.model.model import GPT, KVCache
from tui_llm.llm.predict.tree_attention import tree_features


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT, GPT2LMHeadModel]:
    torch.manual_seed(3)
    folder: Path = tmp_path_factory.mktemp("theirs")
    config = GPT2Config(vocab_size=61, n_positions=12, n_layer=2, n_head=2, n_embd=16, bos_token_id=0, eos_token_id=0)
    reference = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    reference.save_pretrained(folder)
    return checkpoint.load(folder).eval(), reference


def test_each_node_equals_a_fresh_pass_over_its_own_path(both: tuple[GPT, GPT2LMHeadModel]) -> None:
    ours, reference = both
    text = [5, 9, 2, 40]
    cache = KVCache(ours.config)
    with torch.inference_mode():
        ours.features(torch.tensor([text]), cache)
    ids, parents = (
        [7, 8, 9, 7, 60, 1],
        [-1, -1, 0, 2, 1, 3],
    )  # several rows, a repeated token, branches of different depth
    before = cache.keys[:, :, :, : len(text)].clone()
    with torch.inference_mode():
        logits = ours.head(tree_features(ours, cache, ids, parents))
    for at in range(len(ids)):
        way, node = [], at
        while node >= 0:
            way.append(ids[node])
            node = parents[node]
        with torch.no_grad():
            wanted = reference(torch.tensor([text + way[::-1]])).logits[0, -1]
        torch.testing.assert_close(logits[at], wanted, atol=1e-4, rtol=0)
    assert cache.length == len(text) and torch.equal(cache.keys[:, :, :, : len(text)], before)


def test_wider_than_the_context_but_not_deeper(both: tuple[GPT, GPT2LMHeadModel]) -> None:
    ours, reference = both
    cache = KVCache(ours.config)
    with torch.inference_mode():
        ours.features(torch.tensor([[1, 2]]), cache)
        logits = ours.head(tree_features(ours, cache, list(range(40)), [-1] * 40))
        wanted = reference(torch.tensor([[1, 2, 39]])).logits[0, -1]
    torch.testing.assert_close(logits[39], wanted, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="context of 12"):
        tree_features(ours, cache, [3] * 11, [-1, *range(10)])
