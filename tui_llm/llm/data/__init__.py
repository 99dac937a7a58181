"""Text to train on.

texts.py              read text files in blocks
corpora.py            corpora by name, path or address
downloads.py          resumable, checked downloads
stories.py            generated stories of known entropy
corpus.py             text files to token ids on disk; the held-out split
examples.py           input and target pairs of a sequence
bigrams.py            the entropy of a corpus's bigrams
instruction_pairs.py  instruction–answer pairs from a file
"""
