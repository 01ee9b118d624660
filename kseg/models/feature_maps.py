"""Access to the feature maps of a backbone by name."""

from collections.abc import Mapping

from kseg.layers.types import Tensor


def feature_map(features: Mapping[str, Tensor], name: str, needed_by: str) -> Tensor:
    """Returns a feature map of a backbone, or raises if the backbone has none of that stride.

    Args:
        features: Dictionary from names such as "stride_4" to tensors.
        name: String. The wanted feature map.
        needed_by: String. What needs the feature map, for the message.

    Raises:
        ValueError: If there is no such feature map.
    """
    if name not in features:
        raise ValueError(
            f"`backbone` must have a feature map {name!r} for {needed_by}. It has: "
            f"{', '.join(features)}"
        )
    return features[name]


def deepest(features: Mapping[str, Tensor]) -> Tensor:
    """Returns the feature map of the largest stride of the undilated backbone."""
    return features[max(features, key=lambda name: int(name.removeprefix("stride_")))]
