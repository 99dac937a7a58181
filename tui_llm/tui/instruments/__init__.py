"""Full screens over the lab, one per instrument, each with its KEYS beside it.

sampler_keys.py  keys that step the sampler's settings
merges.py        BPE merges step by step
letters.py       letters in tokens
vocabularies.py  one text in several vocabularies
pairs.py         training pairs with their losses
swap.py          another token at the token cursor
temperatures.py  softmax at several temperatures
scratch.py       softmax of typed logits
sampler.py       the form with the sampler's settings
"""
