"""How a trained network is judged: protocols, dense CRF, tables and pictures of errors."""
