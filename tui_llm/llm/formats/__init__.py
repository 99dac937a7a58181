"""Checkpoint files of other training programs: nanoGPT, llm.c, llama2.c, nanochat.

A file is identified by its content, and its sizes are compared with the file's before any memory is allocated. nanoGPT's
and nanochat's files are pickles: a child process with limits reads their tensors, with torch's weights-only loader.

detect.py          which program wrote a file; the checkpoint in a folder
described.py       parameters, context and vocabulary from a file's header
llm_c_header.py    the header of llm.c's .bin
llama2_c_header.py the header of llama2.c's .bin
nanochat_meta.py   nanochat's meta_*.json
nanogpt.py         nanoGPT's ckpt.pt as our own GPT
llm_c.py           llm.c's .bin as our own GPT
llama2_c.py        llama2.c's .bin as transformers' Llama
nanochat.py        nanochat's model_*.pt as transformers' NanoChat, or in nanochat_model.py
nanochat_model.py  nanochat's architecture of March 2026
vocabulary.py      the vocabulary of such a file: beside it, or gpt2
scored_bpe.py      llama2.c's tokenizer.bin
archive.py         the tensors of a torch.save file, through a child process
archive_worker.py  the child process
gpt_weights.py     tensors with GPT-2's names to GPT
"""
