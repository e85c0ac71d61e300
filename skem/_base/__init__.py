"""The frame of every fit: input, callbacks, EM, minibatches."""
