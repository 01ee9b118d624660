"""The file formats that a network is exported to, and imported from."""
