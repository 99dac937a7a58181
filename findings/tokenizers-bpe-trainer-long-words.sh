#!/usr/bin/env bash
# tokenizers 0.23.3: BpeTrainer's time is quadratic in the length of a word.
#
# Expected: training on n letters costs about as much whether they are one word or many, since the trainer keeps pair counts and
# a queue. Seen: one word of 40,000 letters costs some 15 times one of 10,000; the same letters in words of 10 about 4 times.
# It matters wherever the pre-tokenizer does not cut: scripts without spaces, base64, minified code, or no pre-tokenizer at all.
# Here: `tui-llm vocabulary train` cuts long words before it hands them to the trainer (tests/llm/test_vocabularies.py).
#
# Output seen (AMD EPYC, one thread; CPU seconds, the least of three):
#   one word: 10,000 letters 0.03 s, 40,000 letters 0.48 s: 15.9 times
#   words of 10: 10,000 letters 0.008 s, 40,000 letters 0.029 s: 3.6 times
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
cat > "$folder/measure.py" <<'PYTHON'
import random
import sys
import time

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def seconds(text: str) -> float:
    """CPU seconds to learn 300 tokens from `text`, cut at white space: the least of three."""
    least = float("inf")
    for _ in range(3):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        begun = time.process_time()
        tokenizer.train_from_iterator([text], trainer=trainers.BpeTrainer(vocab_size=300, show_progress=False))
        least = min(least, time.process_time() - begun)
    return least


letters = "".join(random.Random(1).choice("abcdefgh") for _ in range(40_000))
in_words = " ".join(letters[at : at + 10] for at in range(0, len(letters), 10))
ratios = []
for name, text, shorter in (("one word", letters, letters[:10_000]), ("words of 10", in_words, in_words[: len(in_words) // 4])):
    long, short = seconds(text), seconds(shorter)
    ratios.append(long / short)
    print(f"{name}: 10,000 letters {short:.3f} s, 40,000 letters {long:.3f} s: {ratios[-1]:.1f} times")
sys.exit(0 if ratios[0] > 8 and ratios[0] > 1.5 * ratios[1] else 1)
PYTHON
RAYON_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/measure.py"
