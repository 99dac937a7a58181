"""What a person is told if a text or a model does not allow what was asked."""

FIRST = "the first token has no prediction: put <|endoftext|> in front (o), or move the token cursor on"
NOT_FED = "the model's context is the last {} tokens: the first of them has no prediction, nor has any before it"
NOTHING = "there is nothing to predict from yet: type some text, or put <|endoftext|> in front"
LONG_TARGET = (
    "the target has {:,} tokens, {:,} more than the context of {:,} holds after the text; each of those takes a forward pass of its "
    "own, and at most {:,} are computed: shorten the target, or measure the text with surprisal"
)
NOT_OURS = (
    "{} is a {!r} model, which runs through {}: this instrument needs a model of GPT-2's layout, such as nano; nor can it "
    "be trained here"
)
NO_TEMPLATE = "{} has no chat template, it is a base model: feed it the plain text (J)"
