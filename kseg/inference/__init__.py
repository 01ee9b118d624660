"""From images to class probabilities, and from those to scores."""
