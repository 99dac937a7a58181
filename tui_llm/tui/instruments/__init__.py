"""Full screens over the lab, one per instrument, with their keys.

keys.py          scopes of the screens below
merges.py        BPE merges step by step
letters.py       letters in tokens
vocabularies.py  one text in several vocabularies
pairs.py         training pairs with their losses
swap.py          another token at the token cursor
temperatures.py  softmax at several temperatures
scratch.py       softmax of typed logits
sampler.py       the form with the sampler's settings
"""
