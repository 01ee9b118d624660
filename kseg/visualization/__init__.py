"""Pictures: label maps, sheets, curves, confusion matrices, feature maps."""
