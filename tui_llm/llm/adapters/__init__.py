"""Models of other architectures, through the extra `[transformers]`: Llama, Qwen, Pythia, Gemma and others; GGUF files.

Weights come from safetensors or GGUF, never from a pickle. A model's own code is never run, and nothing is downloaded.

foreign.py      open a folder or GGUF file through transformers
checks.py       validate a folder before transformers reads it
gguf_header.py  parse and validate the header of a GGUF file
gguf_splits.py  how the names in tokenizer.ggml.pre cut text into words
gguf_vocabulary.py  a GGUF file's vocabulary as a tokenizer.json
gguf_config.py  what transformers leaves out of a GGUF file's settings
gguf_weights.py  a GGUF file's weights through transformers
llama_cpp_library.py  llama.cpp: one model with a KV cache
gguf_quantized.py  a quantized GGUF file through llama.cpp as a Predictor
gguf_writer.py  write a GPT-2 as a GGUF file
peers.py        ctranslate2, llama.cpp and transformers beside our GPT-2, for `bench --against`
causal.py       a causal language model of transformers as a Predictor
parts.py        where the values of such a model's parts stand: attribution, ablation, patching, lens
text_blocks.py  the forward pass of such a model over one text, block by block
tokenizer_steps.py  what comes before and after a tokenizer.json's model, and how much longer it can make a text
vocabulary.py   tokenizer.json as a Tokenizer
chat.py         chat templates
description.py  parameters, context and vocabulary without opening the model
"""
