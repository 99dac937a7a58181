"""Training outside of training runs, and measurements of a model's loss and speed.

learner.py    optimizer steps on one prompt and target, on a copy of the weights
fit_lens.py   fit a tuned lens: translators that minimize KL(final ‖ lens)
backward.py   one backward pass without a step: the gradient of every parameter and token
row_gradients.py  what each row and token of a batch contributes to its gradient
instruct.py   supervised fine-tuning on instruction–answer pairs
answer_batch.py  prompts and answers as a batch of tensors, ln π of the answers' tokens
preference.py direct preference optimization: the loss of pairs of answers
preference_learner.py  pairs learned one by one on a copy, each undone exactly
reward.py     rules that score an answer, as text: contains:happy
policy_gradient.py  advantages of a group of answers, the clipped loss with a KL term, one step (GRPO)
undoable.py   a copy of a model that is trained in steps, each of which can be undone
train_bpe.py  train a BPE vocabulary
evaluate.py   loss and bits per byte on a held-out text
speed.py      tokens per second, compared with the machine's limit and transformers
"""
