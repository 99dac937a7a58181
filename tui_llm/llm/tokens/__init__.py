"""Text to ids to bytes.

text.py              valid text, and the token that separates documents
tokenizer.py         Tokenizer and the byte-level BPE of GPT-2
token_bytes.py       token bytes to text where characters are split
bpe.py               one merge at a time, to be shown
letters.py           which tokens contain a letter
catalog.py           vocabularies by name, and those to compare with
vocabulary_files.py  vocabularies in tiktoken's and Hugging Face's files
vocab_json.py        vocab.json, checked
added.py             vocabularies that the user added: names and folders
add_vocabulary.py    add one from a file
"""
