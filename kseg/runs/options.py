"""The options of an experiment, completed with the defaults of its network and context module."""

from collections.abc import Mapping

from kseg.errors import UserError
from kseg.models import BACKBONES, MODELS
from kseg.models.contexts import find_context
from kseg.models.options import options_of
from kseg.runs.rules import require_known, to_text


def resolved(model: str, given: Mapping[str, object]) -> dict[str, object]:
    """Returns the options of a network and its context module, with their defaults.

    Args:
        model: Name of the network.
        given: The options that are given, by name.

    Raises:
        UserError: An option is not one of the network or of its context module, or has a value that
            these refuse.
    """
    accepted = {name: option.default for name, option in options_of(MODELS[model]).items()}
    owner = f"--model={model}"
    if "context" in accepted:
        context = given.get("context", accepted["context"])
        try:
            options = options_of(find_context(context))
        except ValueError as error:
            raise UserError(f"`--context`: {error}") from error
        accepted = {name: option.default for name, option in options.items()} | accepted
        owner = f"--context={context}"
    if given.get("backbone") is not None:
        require_known("backbone", given["backbone"], BACKBONES)
    for name, value in given.items():
        if name not in accepted:
            raise UserError(f"`--{name}` is not an option of `{owner}`. Received: {to_text(value)}")
    options = accepted | given
    if options.get("dilation_rates", ()) is None:
        # The defaults of Vortex pooling depend on its other options. Written down, they stay the
        # same if an evaluation changes the output stride.
        options["dilation_rates"] = _default_rates(context, options)
    return options


def _default_rates(context: str, options: dict) -> tuple[int, ...] | None:
    """Returns the dilation rates of a context module with these options."""
    layer_class = find_context(context)
    own = {name: options[name] for name in options_of(layer_class)}
    try:
        return getattr(layer_class(name="context", **own), "dilation_rates", None)
    except ValueError as error:
        raise UserError(str(error)) from error
