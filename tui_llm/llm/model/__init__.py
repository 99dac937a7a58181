"""GPT-2, and what differs in today's models: shape, weights, forward pass; devices and their measured peak rates.

shape.py          GPTConfig and its number of parameters
switches.py       the architecture switches: what each does, its source, the layouts that hold it
model.py          the model: embeddings, blocks, output head
kv_cache.py       the keys and values of the tokens processed so far
fast.py           fused forward and backward of a block, and of head and loss, for training on a CPU
flat.py           all parameters in one buffer, and AdamW on it
cautious.py       AdamW and Muon with cautious weight decay
fast_step.py      loss and gradients of a batch without autograd
native_training_step.py  the same with C between the products
native_plan.py    its buffers and calls
native_rms_plan.py  the same for the layouts with RMSNorm, Arcee's and NanoChat's
native_rotary_plan.py  what turns queries and keys in it
native_training.py  compile and load training.c, that C, with training_attention.c, training_products.c, training_rotary.c and training_vectors.h
fast_decode.py    generation on a CPU: a model with fast linear layers, in fp32, half or int8
graph_decode.py   generation on CUDA: a token as one CUDA graph
kernels.py        what multiplies by the weights: named kernels, and which one this machine does best with
linear_layers.py  linear layers for inference: fp32, half and int8, with torch's products
native_layers.py  the same with those of native.c
native_step.py    one token or a prompt through all blocks with native.c
native.py         compile and load native.c, gemm.c and prompt.c, this package's own products for a CPU
inside.py         residual stream, attention weights and logit lens of a forward pass
block_trace.py    what one block computes for one token: queries and keys, heads, neurons
aligned_head.py   the output head for training on a GPU: padded rows within the product
head_scores.py    induction, previous-token and duplicate-token scores of attention heads
attention_only.py  blocks whose MLP adds zero
patching.py       activation patching, batched over the tokens
interventions.py  read and change what the parts of a model compute, with forward hooks
text_blocks.py    the forward pass over one text, block by block
part_effects.py   the effect of each part alone, several in one batch
tuned_lens.py    the translators of a tuned lens
tuned_lens_file.py  tuned lenses as safetensors files, with the hash of the weights that they were fitted to
steering_file.py  steering vectors as safetensors files
small_tensors.py  a few tensors as the bytes of a safetensors file
attribution.py    direct logit attribution: a logit as a sum over parts
predictor.py      Predictor: the interface to a model of any architecture
model_config.py   config.json to GPTConfig
tensor_shapes.py  tensor names and shapes from a safetensors header
shards.py         weight files of a folder: one, or the shards of an index
layouts.py        the layouts of transformers that hold the switches: Starcoder2, Arcee, NanoChat
stored_gpt.py     the tensors of a folder in Hugging Face's GPT-2 layout, found and checked
checkpoint.py     model folders in Hugging Face's GPT-2 layout
numpy_gpt.py      GPT-2 once more, in numpy: reads small models without torch
intact.py         SHA-256 verification of a checkpoint's files
weight_names.py   names of the weight formats: fp32, half, int8
torch_private.py  torch's private names, with what each is needed for
device.py         choose device, precision and number of threads
device_names.py   names of the devices
blas_threads.py   numpy's number of threads
torch_import.py   import torch while a screen goes on
nvml.py           NVIDIA's GPUs as nvidia-smi sees them, through NVML
cpu_reader.py     cores, frequency, use and memory of the CPU
machine_reader.py  GPUs and CPU, again and again
device_gauges.py  what only torch knows of its devices: which GPU, allocated and reserved memory
data_sheets.py    the peak of NVIDIA's GPUs by their data sheets
gpu_problems.py  why a GPU is not used, or stopped working, in one line
machine.py        measured peak FLOP/s and memory bandwidth
"""
