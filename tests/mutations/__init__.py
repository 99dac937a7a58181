"""Mutated files, from a seed: model folders, vocabularies, texts and run folders, each given to the real commands in a process of
its own with limits on CPU and memory. `scripts/mutate_files.py` runs thousands, `test_mutations.py` a sample.

    forked.py        runs a call in a forked child: exit status, output, CPU seconds, memory
    case.py          a case: what is called, and which endings are right
    training/run/changes.py       what is done to bytes, JSON and files of any kind
    models.py vocabularies.py llm/data/corpora.py runs.py    the cases of a kind, from a random generator
    reference.py     the same numbers from transformers, which nobody here wrote
"""
