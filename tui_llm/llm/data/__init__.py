"""Text to train on.

formats.py            the formats of text files; which field is the text
packed.py             gzip and zstd
records.py            documents from JSON lines, JSON and CSV
parquet.py            a column of a Parquet file
texts.py              find text files and read them in blocks: the one reader of corpora
corpora.py            corpora by name, path or URL
downloads.py          resumable downloads, verified by SHA-256
repeats.py            random letters, repeated, with a known entropy
stories.py            synthetic stories with a known entropy
chunks.py             documents to chunks, which are tokenized one by one
closed_vocabulary.py  the characters or words of a corpus
corpus.py             tokenize text files to memory-mapped ids; the held-out split
examples.py           input and target pairs of a sequence; batches
token_places.py       the file and byte that a training token comes from
bigrams.py            the conditional entropy of a corpus's bigrams
instruction_pairs.py  instruction–answer pairs from a file
preference_pairs.py   preference pairs from and to JSON lines
prompts.py            prompts from a file: lines, or records
answer_rows.py        pairs and prompts as tokens; their split and order
"""
