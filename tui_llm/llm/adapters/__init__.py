"""Models that are not GPT-2's layout, through the extra `[transformers]`: Llama, Qwen, Pythia, Gemma and others, GGUF files.

Weights come from safetensors or GGUF, never from a pickle; code that a model brings along is never run; nothing is
downloaded.
"""
