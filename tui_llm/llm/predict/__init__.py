"""From logits to a distribution, a loss and generated text.

distribution.py  softmax, temperature, cuts; ranks
generate.py      sample tokens one after another
window.py        the text's tokens in the model's context, with the KV cache
loss.py          cross-entropy of a target, token by token
forced.py        teacher forcing without a cache
branching.py     many continuations in one forward pass
units.py         nats as bits, perplexity, one in n
"""
