"""Fast implementations of operations that the layers use."""
