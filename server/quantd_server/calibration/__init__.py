"""From texts to tokens, and from tokens to what each linear layer of a model sees."""
