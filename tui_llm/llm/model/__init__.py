"""GPT-2: shape, weights, forward pass, and what is known of the machine that runs it.

shape.py          GPTConfig and its number of parameters
model.py          the model: embeddings, blocks, head
fast.py           a block and the head with loss, forward and backward, for training on a CPU
fast_decode.py    matrix-vector products for generation on a CPU
inside.py         residual stream and attention weights of a forward pass
predictor.py      what the engine asks of a model of any architecture
model_config.py   config.json to GPTConfig
tensor_shapes.py  names and shapes from a safetensors header
checkpoint.py     model folders in Hugging Face's GPT-2 layout
intact.py         SHA-256 of a checkpoint's files
weight_names.py   the weight formats: fp32, half, int8
device.py         choose device, precision and threads
device_names.py   the devices that can be named
machine.py        measured peak FLOP/s and memory bandwidth
"""
