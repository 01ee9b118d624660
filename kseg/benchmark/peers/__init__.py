"""Networks of other projects, measured by scripts that do not import kseg."""
