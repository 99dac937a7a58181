"""Models of other architectures through the extra `[transformers]`: Llama, Qwen, Pythia, Gemma and others, GGUF files.

Weights come from safetensors or GGUF, never from a pickle; a model's own code is never run; nothing is downloaded.

foreign.py      open a folder or GGUF file through transformers
checks.py       checks before transformers reads a folder
gguf_header.py  the header of a GGUF file, checked
causal.py       a causal language model of transformers as a Predictor
vocabulary.py   tokenizer.json as a Tokenizer
chat.py         chat templates
description.py  parameters, context and vocabulary without opening the model
"""
