"""Models, and the tables that resolve their names.

`MODELS` are generators of whole responses, `READOUTS` predict channel sums alone, `CLASSIFIERS` tell whether there
is a response at all. Outside code uses `type = "package.module:Class"` in a recipe.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from caloforge._lookup import nearest, outside
from caloforge.detectors import detector_named
from caloforge.models.autoregressive_flow import MAF
from caloforge.models.base import Classifier, Generator, Model, Readout
from caloforge.models.calodream import CaloDream
from caloforge.models.channel_flow_matching import ChannelFlowMatching
from caloforge.models.diffusion import Diffusion
from caloforge.models.factorized_flow_matching import FactorizedFlowMatching
from caloforge.models.factorized_latent_flow_matching import FactorizedLatentFlowMatching
from caloforge.models.flow_matching import FlowMatching
from caloforge.models.gan import GAN
from caloforge.models.inverse_autoregressive_flow import IAF
from caloforge.models.latent_flow_matching import LatentFlowMatching
from caloforge.models.regressors import ChannelMLP, DecisionTree, GradientBoosting, Linear, NearestNeighbours
from caloforge.models.sinkhorn_autoencoder import SinkhornAutoencoder
from caloforge.models.vit_vae import ViTVAE
from caloforge.models.vqgan import VQGAN
from caloforge.models.yardsticks import Nearest, Resample
from caloforge.models.zero_response import ZeroResponse
from caloforge.recipe import Recipe, merged, validated

__all__ = [
    "CLASSIFIERS",
    "MODELS",
    "READOUTS",
    "Classifier",
    "Generator",
    "Model",
    "Readout",
    "build",
    "configuration",
    "model_class",
    "resolved",
]

MODELS: dict[str, type[Generator]] = {
    "autoregressive_flow": MAF,
    "calodream": CaloDream,
    "diffusion": Diffusion,
    "factorized_flow_matching": FactorizedFlowMatching,
    "factorized_latent_flow_matching": FactorizedLatentFlowMatching,
    "flow_matching": FlowMatching,
    "gan": GAN,
    "inverse_autoregressive_flow": IAF,
    "latent_flow_matching": LatentFlowMatching,
    "nearest": Nearest,
    "resample": Resample,
    "sinkhorn_autoencoder": SinkhornAutoencoder,
    "vit_vae": ViTVAE,
    "vqgan": VQGAN,
}

READOUTS: dict[str, type[Readout]] = {
    "channel_flow_matching": ChannelFlowMatching,
    "channel_mlp": ChannelMLP,
    "gradient_boosting": GradientBoosting,
    "knn": NearestNeighbours,
    "linear": Linear,
    "tree": DecisionTree,
}

CLASSIFIERS: dict[str, type[Classifier]] = {"zero_response": ZeroResponse}


def model_class(recipe: Recipe, *, trust: bool = True) -> Any:
    """Returns the class of the recipe's model; errors and `trust` as for `configuration`."""
    tables: dict[str, Any] = {**MODELS, **READOUTS, **CLASSIFIERS}
    name = recipe.model.get("type")
    if not isinstance(name, str):
        raise ValueError(f"model.type must name a model: {', '.join(tables)}; got {name!r}")
    if name in tables:
        return tables[name]
    if ":" in name:
        kind = outside(name, type, trust=trust)
        if not issubclass(kind, Model):
            raise ValueError(
                f"model.type {name!r} must be a Generator, a Readout or a Classifier, got {kind}"
            )
        return kind
    raise ValueError(f"model.type: no model {name!r}{nearest(name, tables)} (there are {', '.join(tables)})")


def configuration(recipe: Recipe, *, trust: bool = True) -> BaseModel:
    """Validates the recipe's `model` section against the model's own configuration.

    Args:
        recipe: the recipe.
        trust: whether the recipe is the user's own, so that it may name code outside the package.

    Raises:
        ValueError: unknown model or key, or a wrong type; the message gives the path and the nearest name.
    """
    kind = model_class(recipe, trust=trust).config_class
    values = {key: value for key, value in recipe.model.items() if key != "type"}
    defaults = kind().model_dump()
    detector = detector_named(recipe.detector, trust=trust)
    if "rounding" in defaults and not detector.counts:
        defaults["rounding"] = "none"  # energies are no counts
    if defaults.get("channels") == "paper":
        defaults["channels"] = detector.default_channels
    # a section given in part keeps the model's own defaults for the rest, not those of the section's class
    config: BaseModel = validated(kind, merged(defaults, values), "model")
    return config


def resolved(recipe: Recipe, config: BaseModel | None = None) -> Recipe:
    """Returns the recipe with every default of its model written out; `config` where it is validated already."""
    config = configuration(recipe) if config is None else config
    section = {"type": recipe.model["type"], **config.model_dump(mode="json", exclude_none=True)}
    return recipe.model_copy(update={"model": section})


def build(recipe: Recipe, config: BaseModel | None = None, *, trust: bool = True) -> Model:
    """Builds the untrained model of a recipe.

    Args:
        recipe: the recipe.
        config: its `configuration`, where that was validated already.
        trust: as for `configuration`.

    Raises:
        ValueError: as `configuration`, or an unknown detector.
    """
    config = configuration(recipe, trust=trust) if config is None else config
    model: Model = model_class(recipe, trust=trust)(detector_named(recipe.detector, trust=trust), config)
    return model
