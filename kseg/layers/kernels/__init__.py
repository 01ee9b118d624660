"""Fast forms of the operations that the layers are made of."""
