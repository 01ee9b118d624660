"""The file formats that a network is exported to."""
