"""Attention-only models in GPT-2's layout: blocks whose MLP is there, but adds exactly zero.

GPT-2's layout has no block without an MLP. So the MLP gets a hidden layer of one unit (`n_inner` is 1 in config.json) and
all of its weights and biases are 0: its output is 0 for every input, in transformers too, and the residual stream is that
of attention alone (Elhage et al. 2021, section "Attention-only transformers").

It stays zero in training. With all four at 0, the gradients of the two weights and of the first bias are 0 by
themselves: each is a product with a zero weight or with gelu(0) = 0. Only that of the last bias is not; it is dropped
before the gradient's norm is measured. An update of AdamW or Muon with a zero gradient leaves a zero as it is, and so does
weight decay.
"""

from __future__ import annotations

import torch

from tui_llm.llm.model.model import GPT, Block


@torch.no_grad()
def silence(model: GPT) -> None:
    """Set the weights and biases of every MLP to 0."""
    for block in model.blocks:
        assert isinstance(block, Block)
        for parameter in block.mlp.parameters():
            parameter.zero_()


@torch.no_grad()
def drop_gradients(model: GPT) -> None:
    """Set the gradients of every MLP to 0, before they are clipped."""
    for block in model.blocks:
        assert isinstance(block, Block)
        for parameter in block.mlp.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
