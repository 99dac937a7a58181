"""Seeded mutations of files: model folders, vocabularies, texts, run folders and steering files, read by the real commands.

Each case runs in its own process with limits on CPU and memory. `scripts/mutate_files.py` runs thousands of cases,
`test_mutations.py` a sample.

forked.py        runs a call in a forked child: exit status, output, CPU seconds, memory
case.py          a case: the call, and which outcomes are correct
changes.py       mutations of bytes, JSON and files of any kind
models.py vocabularies.py corpora.py runs.py causes.py    the cases of a kind, from a random generator
worker.py        a mutated run resumed by the worker's function, and the uninterrupted run's losses and weights
reference.py     the same numbers from transformers, an independent implementation
session.py       runs many cases
"""
