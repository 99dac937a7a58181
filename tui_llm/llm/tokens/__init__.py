"""Tokenizers: text to ids to bytes.

text.py              valid text, and the token that separates documents
words.py             text to words, numbers, signs and white space
tokenizer.py         Tokenizer, GPT-2's byte-level BPE, byte, character and word tokenizers
closed.py            the characters or words of a text as a vocabulary
closed_files.py      its files
token_bytes.py       token bytes to text, with characters split across tokens
bpe.py               BPE one merge at a time, for display
letters.py           which tokens contain a letter
catalog.py           vocabularies by name, and their files
vocabulary_files.py  readers for tiktoken's and Hugging Face's vocabulary files
vocab_json.py        validated vocab.json
added.py             vocabularies that the user added: names and folders
add_vocabulary.py    add a vocabulary from a file
"""
