"""From logits to a distribution, a loss and generated text.

softmax.py         log-softmax, logsumexp and entropy of logits
distribution.py    temperature, repetition penalty, top-k, top-p, min-p; ranks
cuts.py            which tokens top-k, top-p and min-p keep, also as transformers' generate cuts them
generate.py        autoregressive sampling
window.py          the tokens in the model's context, their features and logits, with the KV cache
loss.py            cross-entropy of a target, token by token
forced.py          teacher forcing without a cache
tree_attention.py  many continuations in one forward pass
draw_group.py      many answers to one prompt, drawn at once
units.py           nats as bits and perplexity
"""
