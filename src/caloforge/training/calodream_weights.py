"""Turns state dictionaries of the authors' CaloDREAM (arXiv:2405.09629) into a run folder.

Their networks and ours compute the same; only places differ:

- the transformer of the voxels adds its positions in the order radius, angle, layer, ours in that of layer, angle,
  radius, so that every layer that reads or writes its tokens is reordered; within a patch they have channels last,
  we first;
- the decoder of the layer energies counts the places of its tokens from 0, ours from 1;
- the autoencoder shares the first layers of its conditions among blocks, has a bias before each batch norm, and two
  convolutions of 1 x 1 x 1 for mean and log-variance, which are multiplied here.

A dictionary holds tensors only, at its top or under `net`; its names tell which network it is. What it does not hold,
means and spreads of the inputs, are fitted to the training file, as the authors did, or given.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caloforge import recipe as recipes
from caloforge.events import Joined, Selected, split
from caloforge.io.files import sha256
from caloforge.io.run import Run
from caloforge.models import Generator, build, resolved
from caloforge.recipe import Recipe
from caloforge.training.checkpoint import save_weights
from caloforge.training.fit import History
from caloforge.training.run import card_of, training_data

ENERGY, SHAPE, AUTOENCODER = "energy network", "shape network", "autoencoder"

SIGNS = {ENERGY: "subnet.", SHAPE: "x_embedder.", AUTOENCODER: "down_blocks."}
"""How names of a network's tensors begin, and of no other's."""

IGNORED = ("positional_encoding.pe", "lgrid", "agrid", "rgrid")
"""Tensors that hold no weights: positions, and the encoding of an embedding that is not used."""

RECIPES = ("ds2-calodream-paper", "ds3-calodream-paper", "ds2-calodream-latent", "ds3-calodream-latent")

State = dict[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """One tensor here and there.

    Attributes:
        theirs: its name in the authors' dictionary.
        ours: its name in our network.
        rows: number of their row for each of ours; all in order where not given.
        columns: likewise.
        leading: the columns are reordered in so many rows, the first; in all where not given.
    """

    theirs: str
    ours: str
    rows: Tensor | None = None
    columns: Tensor | None = None
    leading: int | None = None

    def index(self, shape: torch.Size) -> Tensor:
        """Returns for each of our numbers the place of theirs, of a tensor of our shape."""
        places = torch.arange(shape.numel()).view(shape)
        if self.rows is not None:
            places = places[self.rows]
        if self.columns is not None:
            places = places.clone()
            places[: self.leading] = places[: self.leading][:, self.columns]
        return places.flatten()


def pair(theirs: str, ours: str, rows: Tensor | None = None, columns: Tensor | None = None) -> list[Entry]:
    """Lists weight and bias of a layer."""
    return [
        Entry(f"{theirs}.weight", f"{ours}.weight", rows, columns),
        Entry(f"{theirs}.bias", f"{ours}.bias", rows),
    ]


def energy_entries(numbers: int, width: int, layers: int, blocks: int, dropout: bool) -> list[Entry]:
    """Lists the tensors of the energy network.

    Args:
        numbers: layers of the detector.
        width: of the tokens.
        layers: of the encoder, and of the decoder.
        blocks: hidden layers of the head.
        dropout: their head has layers of dropout, which count in its names.
    """
    # their one-hot of place i is number 1 + i of a token, ours 2 + i; the first of ours is their last, unused one
    order = torch.tensor([0, numbers + 1, *range(1, numbers + 1), *range(numbers + 2, width)])
    transformer, entries = "network.transformer", list[Entry]()

    def attention(theirs: str, ours: str, stream: Tensor | None, leading: int | None = None) -> list[Entry]:
        return [
            Entry(f"{theirs}.in_proj_weight", f"{ours}.inputs.weight", None, stream, leading),
            Entry(f"{theirs}.in_proj_bias", f"{ours}.inputs.bias"),
            *pair(f"{theirs}.out_proj", f"{ours}.out", stream),
        ]

    for coder, stream, norms in (("encoder", None, 2), ("decoder", order, 3)):
        for number in range(layers):
            theirs, ours = f"transformer.{coder}.layers.{number}", f"{transformer}.{coder}.{number}"
            entries += attention(f"{theirs}.self_attn", f"{ours}.attention", stream)
            if coder == "decoder":
                # keys and values are of the memory, whose order is the encoder's
                entries += attention(f"{theirs}.multihead_attn", f"{ours}.to_memory", stream, width)
            entries += pair(f"{theirs}.linear1", f"{ours}.hidden.0", None, stream)
            entries += pair(f"{theirs}.linear2", f"{ours}.hidden.2", stream)
            for norm in range(norms):
                entries += pair(f"{theirs}.norm{norm + 1}", f"{ours}.norms.{norm}", stream)
        entries += pair(f"transformer.{coder}.norm", f"{transformer}.norms.{norms - 2}", stream)
    entries.append(Entry("t_embed.0.W", "network.head.frequencies"))
    entries += pair("t_embed.1", "network.head.time")
    time = 2 * 32
    known = torch.cat([torch.arange(1 + time), 1 + time + order])
    entries += pair("subnet.0", "network.head.first", None, known)
    step = 4 if dropout else 3
    for number in range(blocks):
        place = 2 + step * number
        entries += pair(f"subnet.{place}", f"network.head.middle.{number}.0")
        entries += pair(f"subnet.{place + 1}", f"network.head.middle.{number}.1")
    return entries + pair(f"subnet.{2 + step * blocks}", "network.head.last")


def shape_entries(width: int, blocks: int, channels: int, voxels: int) -> list[Entry]:
    """Lists the tensors of the vision transformer.

    Args:
        width: of the tokens.
        blocks: their number.
        channels: of a voxel.
        voxels: of a patch.
    """
    third = torch.arange(width).view(3, -1)
    stream = third.flip(0).flatten()  # ours by layer, angle, radius; theirs by radius, angle, layer
    patch = torch.arange(voxels * channels).view(voxels, channels).T.flatten()

    def chunks(number: int) -> Tensor:
        return torch.cat([k * width + stream for k in range(number)])

    entries = pair("x_embedder", "network.embed", stream, patch)
    entries.append(Entry("pos_embed_freqs", "network.frequencies"))
    for number in (0, 2):
        entries += pair(f"t_embedder.mlp.{number}", f"network.time.{number}")
        entries += pair(f"c_embedder.{number}", f"network.condition.{number}")
    for number in range(blocks):
        theirs, ours = f"blocks.{number}", f"network.blocks.{number}"
        entries += pair(f"{theirs}.adaLN_modulation.1", f"{ours}.modulation", chunks(6))
        entries += pair(f"{theirs}.attn.qkv", f"{ours}.qkv", None, stream)
        entries += pair(f"{theirs}.attn.proj", f"{ours}.out", stream)
        entries += pair(f"{theirs}.mlp.fc1", f"{ours}.up", None, stream)
        entries += pair(f"{theirs}.mlp.fc2", f"{ours}.down", stream)
    entries += pair("final_layer.adaLN_modulation.1", "network.modulation", chunks(2))
    return entries + pair("final_layer.linear", "network.last", patch, stream)


def autoencoder_state(theirs: State, blocks: int) -> State:
    """Returns our tensors of the autoencoder; `theirs` has all that `autoencoder_names` lists."""
    ours: State = {}

    def copied(name: str, other: str) -> None:
        for kind in ("weight", "bias"):
            ours[f"{other}.{kind}"] = theirs[f"{name}.{kind}"]

    for way, sampled, strided in (("down", "pooling", "strided"), ("up", "upconv1", "transposed")):
        for number in range(blocks):
            name, other = f"{way}_blocks.{number}", f"{way}.{number}"
            copied(f"{name}.{sampled}", f"{strided}.{number}")
            copied("c_encoding.0", f"{other}.condition.0")
            copied("c_encoding.2", f"{other}.condition.2")
            copied(f"{name}.cond_layer", f"{other}.condition.3")
            for place, word in ((1, "first"), (2, "second")):
                ours[f"{other}.{word}.weight"] = theirs[f"{name}.conv{place}.weight"]
                norm = f"{other}.norms.{place - 1}"
                copied(f"{name}.bn{place}", norm)
                # a bias before the norm is a smaller running mean
                shifted = theirs[f"{name}.bn{place}.running_mean"] - theirs[f"{name}.conv{place}.bias"]
                ours[f"{norm}.running_mean"] = shifted
                ours[f"{norm}.running_var"] = theirs[f"{name}.bn{place}.running_var"]
                ours[f"{norm}.num_batches_tracked"] = theirs[f"{name}.bn{place}.num_batches_tracked"]
    first, shift = theirs["bottleneck.0.weight"].flatten(1).double(), theirs["bottleneck.0.bias"].double()
    for name, other in (("conv_mu", "mean"), ("conv_logvar", "logvar")):
        second = theirs[f"{name}.weight"].flatten(1).double()
        ours[f"{other}.weight"] = (second @ first).float()[:, :, None, None, None]
        ours[f"{other}.bias"] = (second @ shift + theirs[f"{name}.bias"].double()).float()
    copied("output_layer", "last")
    return ours


def autoencoder_names(blocks: int) -> list[str]:
    """Lists the names of the authors' tensors of the autoencoder."""
    layers = ["c_encoding.0", "c_encoding.2", "bottleneck.0", "conv_mu", "conv_logvar", "output_layer"]
    names = list[str]()
    for way, sampled in (("down", "pooling"), ("up", "upconv1")):
        for number in range(blocks):
            block = f"{way}_blocks.{number}"
            layers += [f"{block}.{part}" for part in (sampled, "cond_layer", "conv1", "conv2", "bn1", "bn2")]
            moments = ("running_mean", "running_var", "num_batches_tracked")
            names += [f"{block}.bn{norm}.{moment}" for norm in (1, 2) for moment in moments]
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")] + names


def ours_of(theirs: State, entries: Iterable[Entry], model: Mapping[str, Tensor], where: str) -> State:
    """Returns our tensors by name.

    Args:
        theirs: the authors' tensors.
        entries: what is where.
        model: our tensors by name, for their shapes.
        where: the file and the network, for messages.

    Raises:
        ValueError: a tensor of another size.
    """
    state: State = {}
    for entry in entries:
        tensor, shape = theirs[entry.theirs], model[entry.ours].shape
        if tensor.numel() != shape.numel() or (tensor.ndim == len(shape) and tensor.shape != shape):
            raise ValueError(
                f"{where}: {entry.theirs} must have shape {tuple(shape)} with the sizes of the recipe, got "
                f"{tuple(tensor.shape)}: change sizes by --set, or the recipe by --recipe"
            )
        state[entry.ours] = tensor.flatten()[entry.index(shape)].view(shape)
    return state


def theirs_of(ours: Mapping[str, Tensor], entries: Iterable[Entry]) -> State:
    """Returns the authors' tensors by name: the way back, but for shapes that are flat there."""
    state: State = {}
    for entry in entries:
        tensor = ours[entry.ours]
        flat = torch.empty_like(tensor).flatten()
        flat[entry.index(tensor.shape)] = tensor.flatten()
        state[entry.theirs] = flat.view(tensor.shape)
    return state


def read_state(path: Path) -> State:
    """Reads a state dictionary; nothing but tensors and plain values is unpickled.

    Raises:
        ValueError: no such file, or not a dictionary of tensors.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a dictionary of tensors: {' '.join(str(error).split())[:200]}"
        ) from None
    if isinstance(content, Mapping) and isinstance(content.get("net"), Mapping):
        content = content["net"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(tensor, Tensor) for tensor in content.values())
    ):
        raise ValueError(f"{path} must hold a dictionary of tensors, at its top or under 'net'")
    state = {
        str(name).removeprefix("module.").removeprefix("net."): tensor for name, tensor in content.items()
    }
    return {name.replace("x_embedder.1.", "x_embedder."): tensor for name, tensor in state.items()}


def kind_of(state: State, path: Path) -> str:
    """Returns which network a dictionary is of.

    Raises:
        ValueError: none of the three.
    """
    kinds = [kind for kind, sign in SIGNS.items() if any(name.startswith(sign) for name in state)]
    if len(kinds) != 1:
        signs = ", ".join(f"{sign}* ({kind})" for kind, sign in SIGNS.items())
        raise ValueError(
            f"{path}: wanted tensors of one network, {signs}; got {', '.join(list(state)[:4])}, ..."
        )
    return kinds[0]


def check_names(state: State, names: Sequence[str], where: str) -> None:
    """Raises ValueError where a dictionary lacks a name or has one that is unknown; the message lists them."""
    missing = [name for name in names if name not in state]
    unknown = [name for name in state if name not in set(names) and name not in IGNORED]
    problems = [
        f"{what} {', '.join(some[:3])}{f' and {len(some) - 3} more' if len(some) > 3 else ''}"
        for what, some in (("missing", missing), ("unknown", unknown))
        if some
    ]
    if problems:
        raise ValueError(f"{where}: {'; '.join(problems)}")


def _recipe_for(states: Mapping[str, State]) -> str:
    """Returns the name of the recipe whose patches have the sizes of the shape network."""
    embed = states[SHAPE].get("x_embedder.weight")
    latent = AUTOENCODER in states
    sizes = {}
    for name in RECIPES:
        values = recipes.read(name)["model"]
        network = {"width": 480, "patch": [3, 16, 1]} | values["shape"].get("network", {})
        if latent == ("latent" in values):
            sizes[name] = (network["width"], math.prod(network["patch"]) * (2 if latent else 1))
    for name, size in sizes.items():
        if embed is not None and tuple(embed.shape) == size:
            return name
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
    raise ValueError(
        f"no recipe has an x_embedder.weight of shape {None if embed is None else tuple(embed.shape)}; there are "
        f"{listed}; choose one by --recipe and change its sizes by --set"
    )


def import_calodream(
    files: Sequence[Path],
    out: Path,
    data: Sequence[Path],
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    normalization: tuple[Path, Path] | None = None,
) -> dict[str, int]:
    """Writes the run folder of the authors' weights.

    Args:
        files: state dictionaries: of the energy network, the shape network and, of the latent version, the autoencoder.
        out: the run folder, made if need be.
        data: the files they were trained on: means, spreads and the domain are fitted to them, and no score may be of
            them.
        recipe: with the sizes of the networks; found by the shape network where not given.
        settings: changes of the recipe.
        normalization: the authors' means.npy and stds.npy of voxels and u, in place of the fit.

    Returns:
        parameters of each network.

    Raises:
        ValueError: a dictionary that is none of these networks', names that are missing or unknown, other sizes, or a
            folder that holds a run.
    """
    run = Run(out)
    if run.weights.exists() or run.checkpoint.exists():
        raise ValueError(f"{out} already holds a run: choose another --out")
    states, places = dict[str, State](), dict[str, Path]()
    for path in files:
        state = read_state(path)
        kind = kind_of(state, path)
        if kind in states:
            raise ValueError(f"{places[kind]} and {path} both hold the {kind}: give one of each")
        states[kind], places[kind] = state, path
    absent = [kind for kind in (ENERGY, SHAPE) if kind not in states]
    if absent:
        raise ValueError(f"wanted state dictionaries of {ENERGY} and {SHAPE}, got none of the {absent[0]}")
    parsed = _parsed(recipe or _recipe_for(states), data, settings, AUTOENCODER in states)
    model = build(parsed)
    assert isinstance(model, Generator)
    opened = training_data(parsed)
    source = Joined(list(opened.values()))
    parts = split(source, "files", validation=0.0)
    model.stages(Selected(source, parts["train"]))  # fits the normalization
    mapped = _mapped(model, states, places)
    model.load_state_dict({**model.state_dict(), **mapped})
    if normalization is not None:
        _normalize(model, *normalization)
    model.made_with = {"imported": [{"name": path.name, "sha256": sha256(path)} for path in files]}
    out.mkdir(parents=True, exist_ok=True)
    run.write_recipe(parsed)
    save_weights(model.eval(), run.weights)
    hashes = {path: sha256(path) for path in opened}
    card = card_of(parsed, model, opened, hashes, source, parts, History(list(hashes.values())))
    run.write_card(card.model_copy(update={"weights": sha256(run.weights)}))
    return {kind: _parameters(state) for kind, state in states.items()}


def _parameters(state: State) -> int:
    """Counts what is trained: neither positions, nor the frequencies of time, nor what batch norms have seen."""
    fixed = ("t_embed.0.W", *IGNORED)
    seen = ("running_mean", "running_var", "num_batches_tracked")
    return sum(
        tensor.numel() for name, tensor in state.items() if name not in fixed and not name.endswith(seen)
    )


def _parsed(name: str, data: Sequence[Path], settings: Sequence[str], latent: bool) -> Recipe:
    values = recipes.with_settings(recipes.read(name), settings)
    changes = {
        "data.files": [str(path.resolve()) for path in data],
        "data.split": "files",
        "data.validation": 0.0,
        **({"model.latent.network.places": True} if latent else {}),
    }
    return resolved(recipes.parse(recipes.with_values(values, changes)))


def _mapped(model: Generator, states: Mapping[str, State], places: Mapping[str, Path]) -> State:
    """Returns the tensors of our model that the dictionaries hold, by name."""
    config: Any = model.config
    own, layers = model.state_dict(), len(model.detector.layers)
    latent = config.latent.network if config.latent is not None else None
    if latent is None and AUTOENCODER in states:
        raise ValueError(f"{places[AUTOENCODER]}: the recipe is not of the latent version")
    if latent is not None and AUTOENCODER not in states:
        raise ValueError(
            "the recipe is of the latent version: give the state dictionary of its autoencoder too"
        )
    last = max(int(name.split(".")[1]) for name in states[ENERGY] if name.startswith("subnet."))
    blocks = config.energy.blocks
    sizes = config.energy.transformer
    tables = {
        ENERGY: energy_entries(layers, sizes.width, sizes.layers, blocks, last == 2 + 4 * blocks),
        SHAPE: shape_entries(
            config.shape.network.width,
            config.shape.network.blocks,
            1 if latent is None else latent.latent,
            math.prod(config.shape.network.patch),
        ),
    }
    mapped: State = {}
    for (kind, entries), prefix in zip(tables.items(), ("energy.", "shape."), strict=True):
        where = f"{places[kind]}, {kind}"
        check_names(states[kind], [entry.theirs for entry in entries], where)
        ours = {name.removeprefix(prefix): tensor for name, tensor in own.items() if name.startswith(prefix)}
        tensors = ours_of(states[kind], entries, ours, where)
        mapped |= {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    if latent is not None:
        where, number = f"{places[AUTOENCODER]}, {AUTOENCODER}", len(latent.channels)
        check_names(states[AUTOENCODER], autoencoder_names(number), where)
        for name, tensor in autoencoder_state(states[AUTOENCODER], number).items():
            shape = own[f"shape.vae.{name}"].shape
            if tensor.shape != shape:
                raise ValueError(
                    f"{where}: our {name} has shape {tuple(shape)} with the sizes of the recipe, theirs gives "
                    f"{tuple(tensor.shape)}: change sizes by --set, or the recipe by --recipe"
                )
            mapped[f"shape.vae.{name}"] = tensor
    return mapped


def _normalize(model: Any, means: Path, stds: Path) -> None:
    """Sets means and spreads of voxels and u from the authors' files.

    Raises:
        ValueError: not arrays of numbers, or of another length.
    """
    arrays = []
    for path in (means, stds):
        try:
            arrays.append(torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float64).ravel()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not an array of numbers: {error}") from None
    layers = len(model.detector.layers)
    lengths = (model.detector.cells + layers, layers)
    if len(arrays[0]) not in lengths or len(arrays[1]) != len(arrays[0]):
        raise ValueError(
            f"{means} and {stds} must hold {lengths[0]} numbers, of voxels and u, or {lengths[1]}, of u, got "
            f"{len(arrays[0])} and {len(arrays[1])}"
        )
    mean, scale = arrays[0], arrays[1].clamp(min=1e-6)

    def put(transform: Any, rows: slice) -> None:
        transform.mean.copy_(mean[rows])
        transform.scale.copy_(scale[rows])

    put(model.energy.standardize, slice(-layers, None))
    if model.config.latent is None:
        put(model.standardize, slice(-layers, None))
        if len(mean) > layers:
            put(model.shape.standardize, slice(0, -layers))
