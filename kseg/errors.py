"""The exception that programs print as one line instead of a traceback."""

import importlib.metadata


class UserError(ValueError):
    """Invalid input that the user can correct: a flag, a file, a data set or a checkpoint.

    `kseg.cli.run` catches it, prints its message and exits with status 1. The message names the
    argument or file, states the rule and the value received, and where possible gives the command
    that helps.
    """


def missing_extra(extra: str, what: str, error: ImportError | None = None) -> UserError:
    """The error for a feature whose optional packages are not installed.

    kseg is not on the package index, so the message names the packages themselves: the command in
    it works for a checkout and for an installed wheel.

    Args:
        extra: Name of the extra in `setup.py`.
        what: The flag or feature that needs it, the first words of the message.
        error: The failed import, which may have another reason than a missing package.

    Returns:
        The error, for the caller to raise.
    """
    packages = _packages_of(extra)
    how = f"pip install {' '.join(packages)}" if packages else "see EXTRAS in setup.py of kseg"
    reason = f" ({error})" if error else ""
    return UserError(f'{what} needs the extra "{extra}": {how}{reason}')


def _packages_of(extra: str) -> list[str]:
    """The requirements of an extra, quoted for a shell; empty if kseg itself is not installed."""
    try:
        requirements = importlib.metadata.requires("kseg") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = (requirement.split(";") for requirement in requirements)
    return [
        f'"{package.strip()}"'
        for package, *marker in found
        if marker and marker[0].replace("'", '"').strip() == f'extra == "{extra}"'
    ]
