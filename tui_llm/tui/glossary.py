"""The glossary: what each number on screen is, said once. The help screen and docs/glossary.md are made from it.

`places` names where a number is shown, by the scope of the commands there (`logits`, `learn` …): "What is this number?" in
the help lists the terms of the place that it was opened from.
"""

from __future__ import annotations

from dataclasses import dataclass

from tui_llm.instruments.why.sums import FORMULA
from tui_llm.training.plan.cost import BESIDE, TENSORS


@dataclass(frozen=True, slots=True)
class Term:
    name: str  # as it is written on screen
    meaning: str  # a sentence, with the formula
    unit: str = ""
    places: tuple[str, ...] = ()


RUN = ("training", "runs", "comparison")
ROWS = ("logits", "scratch", "temperatures", "swap")

TERMS = (
    Term("token", "a piece of text with a number (its id); the model reads and predicts ids", "", ("tokens", "prompt", "merges", "vocabularies", "letters")),
    Term("id", "the token's number in the vocabulary, from 0", "", ("tokens", "logits", "loss", "generate", "inside", "tree")),
    Term("bytes per token", "the bytes of the text ÷ its number of tokens: how much text one token covers", "bytes", ("vocabularies", "tokens")),
    Term("rank of a merge", "the merge's place in the vocabulary's list: of the possible merges, the one with the lowest rank is done first", "", ("merges",)),
    Term("count of letters", "how often the letter is inside each token; the model sees the ids, not the letters", "letters", ("letters",)),
    Term("logit", "the model's unnormalized score for a token: any number; larger is likelier", "", (*ROWS, "loss", "learn", "ablate")),
    Term("penalised", "the logit after the repetition penalty: logits of tokens in the text are divided by it, or multiplied if negative", "", ("logits", "scratch")),
    Term("e^logit", "the score made positive; divided by the sum over the vocabulary it is raw p (softmax)", "", ("logits", "scratch")),
    Term("x, e^x", "in the stages, x is logit ÷ T minus the largest of them: no e^x overflows, and the probabilities are the same", "", ("logits", "scratch")),
    Term("raw p", "probability from the logits alone: e^logit ÷ Σ e^logit (softmax), before temperature and cuts", "0 to 1, or %", (*ROWS, "loss", "tokens", "pairs", "tree", "learned", "foreign", "inside", "compare_models", "chat", "steer")),
    Term("p(T=…), p uncut", "probability after repetition penalty and temperature, before the cuts: top-p adds these up", "0 to 1, or %", ("logits", "scratch", "sampler")),
    Term("p, p(T=…, top-p …)", "probability after temperature and cuts: softmax(logits ÷ T), cut, renormalized; tokens are sampled from it", "0 to 1, or %", ("logits", "scratch", "temperatures", "generate", "draw", "draw_many", "tree", "sampler", "compare_models")),
    Term("T", "temperature: divides the logits. Below 1 the likely tokens become likelier; 0 always takes the likeliest (greedy)", "", ("logits", "scratch", "temperatures", "generate", "draw", "draw_many", "sampler")),
    Term("top-k", "keeps the k likeliest tokens; the others are never sampled", "tokens", ("logits", "scratch", "generate", "sampler")),
    Term("top-p", "keeps the fewest of the likeliest tokens whose probabilities add up to it", "0 to 1", ("logits", "scratch", "generate", "draw", "draw_many", "sampler")),
    Term("min-p", "keeps tokens whose probability is at least this share of the largest", "0 to 1", ("logits", "scratch", "generate", "sampler")),
    Term("repetition penalty", "divides the positive logits of tokens that are in the text, and multiplies the negative ones; 1 has no effect", "", ("sampler",)),
    Term("renorm.", "the probabilities that the cuts keep, divided by their sum: the distribution that tokens are sampled from", "0 to 1, or %", ("logits", "scratch")),
    Term("logsumexp of logits", "ln Σ e^logit: the denominator of raw p, as a logarithm. In the formula of the loss it is called logsumexp", "nats", ("logits", "scratch", "loss")),
    Term("logsumexp of logits ÷ T", "ln Σ e^(logit ÷ T): the denominator of the softmax at temperature T, as a logarithm. At T = 1 it is that of the logits", "nats", ("logits", "scratch")),
    Term("entropy", "the uncertainty of the prediction: −Σ p ln p. 0 = certain, ln V = all tokens equally likely", "nats", ("logits", "scratch", "temperatures", "tokens", "inside")),
    Term("choices", "e^entropy, the effective number of choices: this many equally likely tokens have the same entropy", "tokens", ("logits", "scratch")),
    Term("◆  *", "in the table: the target of the loss; a logit that you changed (what if)", "", ("logits",)),
    Term("rank", "1 + the number of tokens with a larger logit", "", ("logits", "loss", "tokens", "generate", "pairs", "swap", "learn", "inside", "learned", "foreign", "tree")),
    Term("surprisal", "−ln p of a token given the text before it, with raw p: the loss of that one token", "nats", ("tokens", "tree", "samples", "batch", "sft")),
    Term("loss", "−ln p of the target, with raw p: logsumexp − logit. 0 at p = 1; lower is better", "nats", ("loss", "learn", "pairs", "batch", "step", "step_row", "learned", "foreign", "ablate", *RUN)),
    Term("bits", "the loss divided by ln 2: −log2 p. 1 bit less is twice the probability", "bits", ("loss", "guess", "compare_models", "chat")),
    Term("ln raw p", "the natural logarithm of raw p; the sum over an answer's tokens is that of the whole answer", "nats, negative", ("chat",)),
    Term("bits per token", "the sum of −log2 p over the tokens ÷ their number", "bits", ("guess",)),
    Term("bits per byte", "the bits of the text ÷ its bytes: compares models of different vocabularies", "bits", ("compare_models",)),
    Term("your bet", "the probability that you put on a token, in percent; at most 99 in all", "%", ("guess",)),
    Term("q(x), your p", "the probability that your bets give a token: your bet on it + (1 − the sum of your bets) × its unigram probability", "0 to 1, or %", ("guess",)),
    Term("unigram", "a model that knows only how often each token occurs: (its count + 1) ÷ (all counts + V)", "", ("guess",)),
    Term("uniform", "log2 V: the bits of a uniform guess over the V tokens of the vocabulary", "bits", ("guess",)),
    Term("you beat it", "at these tokens your bits are fewer than the model's: you gave the true token a larger probability", "tokens", ("guess",)),
    Term("loss on the answers", "the mean of −ln p over the answers' tokens; the questions' tokens have no loss, and no gradient", "nats per token", ("sft",)),
    Term("×tokens, ×time", "the tokens, and the time of the steps, that a rung needs to the first rung's last validation loss ÷ the first rung's own", "", ("ladder",)),
    Term("budget", "what each rung of a ladder gets: optimizer steps, minutes of steps, or FLOPs (operations of forward and backward pass)", "", ("ladder", "new_ladder")),
    Term("perplexity", "e^loss: as uncertain as a choice among that many equally likely tokens", "tokens", ("loss", *RUN)),
    Term("one in N", "the loss as odds, N = e^loss: as surprising as one outcome of N equally likely ones", "", ("loss",)),
    Term("p − y", "the gradient of the loss with respect to the logits (y: 1 for the target, 0 elsewhere): below 0 the loss falls if the logit rises. A step changes weights that all logits share", "", ("loss",)),
    Term("ln V", "the loss of a uniform guess over the V tokens of the vocabulary: the first baseline to beat", "nats", ("loss", *RUN)),
    Term("step size", "the learning rate: SGD subtracts it times the gradient; AdamW scales each weight's step to about its size", "", ("learn",)),
    Term("gradient, gradient norm", "the square root of the sum of squares of all gradients: how steep the loss is at these weights", "", ("learn", "training", "backward", "curves")),
    Term("train, validation", "the mean loss of a step's batch, and of held-out text that is never trained on; of a run that learns from answers, the chart says what its loss is", "nats per token", RUN),
    Term("mean of 60 steps", "the mean training loss of the last 60 steps", "nats per token", ("training",)),
    Term("unigrams, bigrams", "baselines: the training text's entropy by token counts alone, and by counts given the token before", "nats per token", RUN),
    Term("ends between … and …", "a band that holds the mean training loss of the last 5 % of the steps with 80 % probability", "nats per token", ("training", "alarms")),
    Term("alarm", "numbers of the run that are not normal: a spike, divergence, a plateau, overfitting, a low loss, a dead gradient, an outlier row", "", ("training", "alarms")),
    Term("largest row loss", "of the rows of a step's batch, the largest mean loss; an alarm says if a row is far above the others", "nats per token", ("curves", "alarms")),
    Term("floor", "the entropy of the text's source, where it is known: no model has a lower loss on new text", "nats per token", ("training",)),
    Term("after step", "the last step of the parent that a branch keeps: it begins with the weights and the optimizer state after it", "steps", ("branch",)),
    Term("of the loss", "a row's or token's share of the summed loss of all targets of the step", "%", ("step",)),
    Term("‖g‖", "the part in the gradient's norm: the row's own gradient · the batch's ÷ ‖g‖ ÷ rows. The parts of all rows sum to 100 %; below 0, the row pulls against the batch", "%", ("step",)),
    Term("byte", "where the row's or token's text begins in its file", "bytes", ("step", "step_row")),
    Term("before → after", "a pin's p and loss before and after the step: the target's, or of the token that was likeliest before it", "0 to 1; nats", ("step",)),
    Term("epoch", "passes over the training text: tokens trained on ÷ tokens of the text", "", RUN),
    Term("tokens/s", "training tokens per second: batch size × grad accumulation × context ÷ the mean time of the last 50 steps, without evaluations and checkpoints; of prompts and answers, those computed", "tokens per second", RUN),
    Term("MFU", "model FLOPs utilization: the FLOPs that the model needs per second ÷ the device's peak", "%", RUN),
    Term("of tensors", f"an estimate of the memory for the run's {TENSORS}; {BESIDE}", "bytes", ("new_run",)),
    Term("memory", "what the run's process holds: its tensors, and Python and torch, some hundred MB; on CUDA the most that its tensors took", "bytes", ("training", "machine", "curves")),
    Term("allocated", "GPU memory in tensors of the process (torch.cuda.memory_allocated)", "bytes", ("training", "machine")),
    Term("reserved", "what torch's allocator holds of the GPU: these tensors and its cache (torch.cuda.memory_reserved)", "bytes", ("training", "machine")),
    Term("on the card", "GPU memory that all programs use, with CUDA's own part: nvidia-smi's memory.used", "bytes", ("training", "machine")),
    Term("GPU, utilization", "the part of the last second or less in which a kernel ran; how well it used the GPU is MFU. N/A: not read", "%", ("training", "machine")),
    Term("CPU, busy", "the busy share of the cores that the process may use, by all programs, since the reading before", "%", ("training", "machine")),
    Term("lr, learning rate", "what the schedule gives at this step: warm-up to the peak, then decay", "", ("training", "new_run")),
    Term("rate", "the peak learning rate of a short run from the same weights; the pick is where such runs end lowest", "", ("find_lr",)),
    Term("last validation loss", "cross-entropy on the held-out rows after the run’s last step; ! where it diverged, or is no lower than the untrained model’s", "nats", ("find_lr",)),
    Term("parameters", "the model's weights, counted; a tied output head counts once", "", ("models", "model_info", "new_run", "runs")),
    Term("context", "the most tokens that the model reads at once", "tokens", ("models", "model_info", "new_run")),
    Term("vocabulary", "the number of tokens that the softmax is over (V)", "tokens", ("models", "model_info", "vocabularies")),
    Term("u", "the random number from 0 to 1 that selected the token on the cumulative distribution", "0 to 1", ("generate", "draw", "tree")),
    Term("from, to", "a token's part of the cumulative distribution: it is drawn if u falls in it; the width is its p", "0 to 1", ("draw",)),
    Term("drawn, expected", "how often a token came in many draws, beside its p × the number of draws", "draws", ("draw_many",)),
    Term("off", "(drawn − expected) ÷ √(n p (1 − p)): beyond ±3 is rare by chance", "standard errors", ("draw_many",)),
    Term("p of the path", "the product of the raw p of the tokens on a path of the tree; its surprisal is the sum of theirs", "0 to 1, or nats", ("tree",)),
    Term("forward pass on 1 token", "how many tokens ran through the model for this reading, and the time it took; the others are in the KV cache", "ms", ("prompt",)),
    Term("attention", "how a head distributes a weight of 1 from one token over the tokens up to it: softmax(q · k ÷ √D)", "0 to 1, or %", ("inside",)),
    Term("effective tokens", "e^entropy of a head's weights: the number of tokens over which even attention has the same entropy", "tokens", ("inside",)),
    Term("update ÷ weight", "‖ΔW‖ ÷ ‖W‖ of a step: how far it moved a matrix, relative to its size; healthy runs are often said to lie near 0.001", "", ("curves",)),
    Term("activation scale", "the root of the mean square of a block's output, the residual stream after it, over the first rows of the step's batch", "", ("curves",)),
    Term("induction", "a head's mean attention to what followed an earlier occurrence of the current token", "0 to 1", ("heads", "run_heads", "foreign")),
    Term("previous token", "a head's mean attention to the token before the current one", "0 to 1", ("heads", "run_heads")),
    Term("duplicate token", "a head's mean attention to an earlier occurrence of the current token", "0 to 1", ("heads", "run_heads")),
    Term("tuned lens", "the logit lens after an affine translator per layer, h + W h + b, fitted so that the row comes close to the model's prediction", "", ("inside", "lens_grid")),
    Term("logit lens", "the prediction if the model ended after a layer: the final norm and output head applied to that layer's output", "", ("inside", "lens_grid", "foreign")),
    Term("of the logit", f"what a part adds to a token's logit: {FORMULA}; the norm's bias is a part of its own. The sum of all parts is the logit", "logits", ("why", "neurons")),
    Term("difference", "what a part adds to the target's logit minus what it adds to the rival's: above 0 it prefers the target", "logits", ("why", "neurons")),
    Term("activation", "the value of a neuron: GELU (or ReLU²) of its input; times its output vector it is added to the residual stream", "", ("neurons",)),
    Term("alone off: +0.41", "how much the target's loss rises if only this part of the model is switched off; below 0 the loss falls. Effects do not add up", "nats", ("ablate",)),
    Term("× μ ⇄", "the part is switched off (zero), at its mean over the text, or has its value after another prompt", "", ("ablate",)),
    Term("logit difference", "the target's logit minus its rival's: above 0 the model prefers the target", "logits", ("patch",)),
    Term("share of the way", "(patched − this text) ÷ (clean − this text), of logit differences: 0 = the patch changes nothing, 100 % = the clean prompt's difference is back", "%", ("patch",)),
    Term("residual stream", "the vector of each token that every block reads, and adds its attention and its MLP to", "", ("patch", "steer")),
    Term("coefficient", "the direction is multiplied by it before it is added to every token's residual stream; below 0 it steers the other way", "", ("steer",)),
    Term("length", "the Euclidean norm of a vector: √Σ x²", "", ("steer",)),
    Term("KL", "the Kullback–Leibler divergence of a prediction q from another one, p: Σ p ln(p ÷ q); 0 = identical", "nats", ("inside", "learn")),
    Term("KL(A ‖ B), KL(B ‖ A)", "Σ p_A log2(p_A ÷ p_B): the mean bits that B's prediction costs more than A's where A is right; the other direction swaps them, and differs", "bits", ("compare_models",)),
    Term("total variation", "½ Σ |p_A − p_B|: the share of the probability that the two models put on different tokens", "0 to 1, or %", ("compare_models",)),
    Term("B − A", "the difference of the two columns before it: of raw p in percentage points, of a loss in bits", "points, or bits", ("compare_models",)),
    Term("ln p(chosen), ln p(rejected)", "the log-probability of a whole answer after the prompt: the sum over its tokens", "nats", ("prefer",)),
    Term("reward(chosen), reward(rejected)", "DPO's implicit reward: β (ln π − ln ref) of the answer, ÷ its tokens if they are per token; π is the copy, ref the open model", "", ("prefer",)),
    Term("margin", "reward(chosen) − reward(rejected): above 0 the model agrees with the choice; the loss is −ln σ(margin), at first ln 2; an SFT weight α adds α · (−ln π(chosen) ÷ its tokens)", "", ("prefer",)),
    Term("agreed", "pairs whose margin was above 0 before the copy learned them; the first says nothing, because the copy is the reference", "pairs", ("prefer",)),
    Term("KL(π ‖ ref)", "how far the copy's next-token predictions after the prompts ranked so far are from the open model's: their mean", "nats", ("prefer",)),
    Term("reward", "what the rule gives an answer, or the key 0 to 9; a step raises the answers above the group's mean", "", ("reward",)),
    Term("advantage", "reward − the group's mean (Dr. GRPO), or that ÷ the group's standard deviation (GRPO): the weight of the answer in the step", "", ("reward",)),
    Term("Δ ln p", "the change of the answer's log-probability by the step, summed over its tokens; ▲ ▼ mark the tokens beyond ±0.05", "nats", ("reward",)),
    Term("at T = …", "of an answer that was drawn at a temperature other than 1, ln p, its loss and p are not raw but softmax(logits ÷ T): what is drawn from, and learns", "", ("reward", "batch")),
    Term("KL, nats a token", "estimate of KL(π ‖ ref) from the drawn tokens, the mean of ref ÷ π − ln(ref ÷ π) − 1, at their temperature: how far the copy is from the open model", "nats", ("reward",)),
    Term("different tokens", "different tokens ÷ all tokens of the group's answers (distinct-1): it falls as the answers collapse", "%", ("reward",)),
    Term("q·k ÷ √D", "a head's score of an earlier token, before the softmax over all of them: the product of query and key ÷ √(head size)", "", ("block",)),
    Term("‖stream‖", "the length √Σ x² of the residual stream at the token: what blocks read and add to", "", ("block",)),
    Term("▲ ▼ in a block", "what a head or neuron adds to the logits of tokens, through the final norm (its σ frozen) and the output head", "", ("block",)),
    Term("‖∂L/∂e‖", "the length of the loss's gradient for a token's embedding: how strongly the loss depends on it", "", ("backward",)),
    Term("e · ∂L/∂e", "gradient × input: below 0, a longer embedding of this token would lower the loss, to first order", "nats", ("backward",)),
    Term("cosine", "of the angle between two embeddings: 1 = same direction, 0 = orthogonal", "−1 to 1", ("inside",)),
)  # fmt: skip


def terms_at(place: str) -> list[Term]:
    """The terms of the numbers that `place` shows."""
    return [term for term in TERMS if place in term.places]
