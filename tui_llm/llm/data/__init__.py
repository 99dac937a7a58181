"""Text to train on.

texts.py              find text files and read them in blocks
corpora.py            corpora by name, path or URL
downloads.py          resumable downloads, verified by SHA-256
stories.py            synthetic stories with a known entropy
corpus.py             tokenize text files to memory-mapped ids; the held-out split
examples.py           input and target pairs of a sequence; batches
bigrams.py            the conditional entropy of a corpus's bigrams
instruction_pairs.py  instruction–answer pairs from a file
"""
