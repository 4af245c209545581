"""The documentation: its code runs, its commands exist, its links resolve, its keys are those of the code."""

import csv
import importlib.util
import json
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import h5py
import pytest
import typer
from pydantic import BaseModel

import caloforge
from caloforge import cli, comparison, recipe, samples
from caloforge.detectors import ZP
from caloforge.evaluation.scoring import Sweep, evaluate_events, evaluate_run
from caloforge.io import FORMATS, create, open_events, provenance, study
from caloforge.metrics import METRICS
from caloforge.models import CLASSIFIERS, MODELS, READOUTS, vqgan
from caloforge.models import factorized_latent_flow_matching as factorized_latent
from caloforge.models import latent_flow_matching as latent
from caloforge.models.factorized_flow_matching import (
    DistillationConfig,
    ImageConfig,
    ImageStudentConfig,
    PlaceConfig,
    SumsConfig,
)
from caloforge.models.flow_matching import FlowMatchingConfig
from caloforge.models.inverse_autoregressive_flow import DistillationConfig as StudentConfig
from caloforge.models.parts.bayesian import BayesianConfig
from caloforge.models.parts.flow_images import ExpectedPlaceConfig
from caloforge.models.parts.flow_likelihood import FlowTrainingConfig
from caloforge.models.parts.layer_energies import EnergyConfig
from caloforge.models.parts.layout import LayoutConfig
from caloforge.models.parts.photons import PhotonsConfig
from caloforge.models.parts.shower_shapes import LatentConfig, ShapeConfig
from caloforge.nn.autoregressive import FlowConfig as AutoregressiveFlowConfig
from caloforge.nn.cross_attention_unet import CrossAttentionUNetConfig
from caloforge.nn.gpt import GPTConfig
from caloforge.nn.image_vit import ImageViTConfig
from caloforge.nn.made import MADEConfig
from caloforge.nn.patch_autoencoder import PatchAutoencoderConfig
from caloforge.nn.patch_network import PatchNetworkConfig
from caloforge.nn.transformer import TransformerConfig
from caloforge.nn.vit import ViTConfig
from caloforge.nn.voxel_vae import VoxelVAEConfig
from caloforge.ode.average_velocity import AverageVelocityConfig
from caloforge.ode.bespoke import BespokeConfig
from caloforge.ode.solvers import SolverConfig
from caloforge.optim import AdamConfig
from caloforge.training import space

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page, *languages):
    """Returns the fenced blocks of a page in some languages, as text."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def tables(page):
    """Returns the tables of a page by their heading: rows of cells, without the first two lines."""
    found, heading = {}, ""
    for line in page.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return {heading: rows[2:] for heading, rows in found.items()}


def keys(rows):
    """Returns what the first cells have in backticks."""
    return [key for row in rows for key in re.findall(r"`([^`]+)`", row[0])]


def commands(page):
    """Returns the words of every `caloforge ...` of a page's console blocks."""
    lines = [
        line
        for text in blocks(page, "console", "sh", "bash")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["caloforge"]]


# --- commands and links ------------------------------------------------------------------------------------


def parse(words):
    """Reads the words of a command as the command line does, without running it; returns its values."""
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            raise typer.BadParameter(f"no command {words[0]}")
        command, words = command.commands[words[0]], words[1:]
    try:
        return command.make_context("caloforge", list(words)).params
    except typer.Exit:  # --version
        return {}


@BY_PAGE
def test_every_command_exists_with_its_options(page):
    for words in commands(page):
        values = parse(words)
        given = values.get("recipe")
        assert given is None or given.endswith(".toml") or given in recipe.packaged(), words
        for word in words:
            assert not word.startswith("sample:") or samples.sample(word.removeprefix("sample:")).is_file(), (
                words
            )


@pytest.mark.parametrize("words", [["train", "x", "--nope"], ["trian", "x"], ["data", "convert", "a"]])
def test_a_wrong_command_would_be_found(words):
    with pytest.raises(typer.BadParameter.__base__):
        parse(words)


@BY_PAGE
def test_every_relative_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}"


# --- what is named is what there is ------------------------------------------------------------------------


def test_every_model_metric_and_format_is_documented():
    assert {*MODELS, *READOUTS, *CLASSIFIERS} <= set(re.findall(r"`(\w+)`", (DOCS / "choose.md").read_text()))
    assert set(METRICS) <= set(re.findall(r"\w+", (DOCS / "metrics.md").read_text()))
    assert keys(tables(DOCS / "formats.md")["Files"]) == list(FORMATS)


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert project["version"] == caloforge.__version__
    assert f"version: {project['version']}" in citation
    assert f"license: {project['license']}" in citation
    assert f'abstract: "{project["description"]}"' in citation
    assert f"caloforge-{project['version']}-py3-none-any.whl" in (ROOT / "README.md").read_text()
    assert f"## [{caloforge.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_tables_of_the_readme_are_those_of_the_weights_that_ship():
    text = (ROOT / "README.md").read_text()
    filled = runpy.run_path(str(ROOT / "tools" / "readme.py"))["filled"]
    assert filled(text) == text, "run tools/readme.py"


def test_the_api_pages_are_of_modules_that_exist_and_of_every_model():
    modules = re.findall(r"^   (caloforge[\w.]*)$", (DOCS / "api" / "index.md").read_text(), re.MULTILINE)
    assert len(set(modules)) == len(modules)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    assert {kind.__module__ for kind in {**MODELS, **READOUTS, **CLASSIFIERS}.values()} <= set(modules)


# --- the log -----------------------------------------------------------------------------------------------

LOG = DOCS / "log"
ENTRIES = sorted(path for path in LOG.glob("*.md") if path.name != "index.md")
LINE = re.compile(r"- (\d{4}-\d\d-\d\d) \[(.+)\]\((\S+\.md)\) \((positive|negative|mixed)\): \S.*")


def test_the_log_lists_each_entry_once_with_its_verdict_newest_first():
    lines = [LINE.fullmatch(line) for line in (LOG / "index.md").read_text().splitlines() if line[:2] == "- "]
    assert None not in lines
    headings = {path.name: path.read_text().partition("\n")[0] for path in ENTRIES}
    assert {line[3]: f"# {line[2]} ({line[4]})" for line in lines} == headings
    assert len(lines) == len(headings)
    dates = [line[1] for line in lines]
    assert dates == sorted(dates, reverse=True)
    assert all(line[3].startswith(f"{line[1]}-") for line in lines)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.stem)
def test_an_entry_of_the_log_has_one_heading_and_begins_with_its_date(entry):
    text = re.sub(r"^```.*?^```$", "", entry.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert text.split("\n")[2].startswith(f"{entry.name[:10]}.")


# --- recipes -----------------------------------------------------------------------------------------------

SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": recipe.Recipe,
    "`[data]`": recipe.DataConfig,
    "`[training]`": recipe.TrainingConfig,
    "`[model.bayesian]`": BayesianConfig,
    "`[model.network]` of `flow_matching`": type(FlowMatchingConfig().network),
    "`[model.sums]` of `factorized_flow_matching`": SumsConfig,
    "`[model.image.distillation]` of `factorized_flow_matching`": DistillationConfig,
    "`[model.image.student]` of `factorized_flow_matching`": ImageStudentConfig,
    "`[model.place]` of `factorized_flow_matching`": PlaceConfig,
    "`[model.layout]` of `factorized_flow_matching`": LayoutConfig,
    "`[model.image]` of `factorized_flow_matching`": ImageConfig,
    "`[model.image.network]` of `factorized_flow_matching`": PatchNetworkConfig,
    "`[model.vae]` of `latent_flow_matching`": latent.VAEConfig,
    "`[model.vae.network]` of `latent_flow_matching`": latent.AutoencoderConfig,
    "`[model.vae.losses]` of `latent_flow_matching`": latent.LossesConfig,
    "`[model.sums]` of `factorized_latent_flow_matching`": factorized_latent.SumsConfig,
    "`[model.code]` of `factorized_latent_flow_matching`": factorized_latent.CodeConfig,
    "`[model.code.distillation]` of `factorized_latent_flow_matching`": factorized_latent.DecoderDistillationConfig,
    "`[model.code.network]` of `factorized_latent_flow_matching`": PatchAutoencoderConfig,
    "`[model.flow]` of `factorized_latent_flow_matching`": factorized_latent.FlowConfig,
    "`[model.image]` of `vqgan`": vqgan.ImageCodesConfig,
    "`[model.condition]` of `vqgan`": vqgan.ConditionCodesConfig,
    "`[model.particle]` of `vqgan`": vqgan.ParticleConfig,
    "`[model.prior]` of `vqgan`": vqgan.PriorConfig,
    "`[model.prior.network]` of `vqgan`": GPTConfig,
    "`[model.photons]` of `autoregressive_flow`": PhotonsConfig,
    "`[model.place]` of `autoregressive_flow`": ExpectedPlaceConfig,
    "`[model.flow]` of `autoregressive_flow`": AutoregressiveFlowConfig,
    "`[model.flow.network]` of `autoregressive_flow`": MADEConfig,
    "`[model.training]` of `autoregressive_flow`": FlowTrainingConfig,
    "`[model.distillation]` of `inverse_autoregressive_flow`": StudentConfig,
    "`[model.energy]` of `calodream`": EnergyConfig,
    "`[model.energy.transformer]` of `calodream`": TransformerConfig,
    "`[model.shape]` of `calodream`": ShapeConfig,
    "`[model.shape.network]` of `calodream`": ViTConfig,
    "`[model.latent]` of `calodream`": LatentConfig,
    "`[model.latent.network]` of `calodream`": VoxelVAEConfig,
    "`[model.cross_attention]` of `diffusion`": CrossAttentionUNetConfig,
    "`[model.network]` of `gan`, `vit_vae`, `sinkhorn_autoencoder`": ImageViTConfig,
    "`[model.solver]`": SolverConfig,
    "`[model.bespoke]`": BespokeConfig,
    "`[model.average_velocity]`": AverageVelocityConfig,
    "`[model.optimizer]`": AdamConfig,
    **{
        f"`[model]` of `{name}`": kind.config_class
        for name, kind in {**MODELS, **READOUTS, **CLASSIFIERS}.items()
    },
}


def default(text):
    """Reads a cell of defaults; of a section what differs from the section's own."""
    values = re.findall(r"`([^`]+)`", text)
    if text.startswith("section"):
        return tomllib.loads("\n".join(values))
    return {"none": None}.get(text) if not values else tomllib.loads(f"x = {values[0]}")["x"]


def plain(value):
    if isinstance(value, BaseModel):
        return {key: plain(one) for key, one in value if one != type(value).model_fields[key].default}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_of_a_recipe_is_documented_with_its_default(heading):
    rows = tables(DOCS / "formats.md")[heading]
    fields = SECTIONS[heading].model_fields
    assert keys(rows) == list(fields)
    for (name, field), (_, text, _) in zip(fields.items(), rows, strict=True):
        if field.is_required():
            assert text == "required", name
        else:
            assert default(text) == plain(field.default), name


def test_no_section_is_documented_that_does_not_exist():
    headings = {heading for heading in tables(DOCS / "formats.md") if heading.startswith("`[")}
    assert headings <= set(SECTIONS)


# --- studies -----------------------------------------------------------------------------------------------


def test_the_search_space_of_the_page_fits_the_recipe_of_its_commands():
    (text,) = blocks(DOCS / "tune.md", "toml")
    found = space.parse_space(tomllib.loads(text))
    space.check(found, recipe.parse(recipe.read("zn-flow_matching")))
    for words in commands(DOCS / "tune.md"):
        named = parse(words).get("space")
        assert named is None or named.endswith(".toml") or named in recipe.packaged("spaces")


def test_the_keys_of_a_search_space_and_of_a_study_are_documented():
    page = tables(DOCS / "tune.md")
    for heading, config in {"The search space": study.Space, "Pruning": study.PruningConfig}.items():
        assert keys(page[heading]) == list(config.model_fields)
        for row, field in zip(page[heading], config.model_fields.values(), strict=True):
            assert row[1] in ("required", "section") or default(row[1]) == field.default
    assert keys(page["Ranges"]) == list(space.KINDS)
    for row, kind in zip(page["Ranges"], space.KINDS.values(), strict=True):
        assert ["type", *re.findall(r"`(\w+)`", row[1])] == list(kind.model_fields)
    assert keys(page["The study folder"])[:3] == [study.TRIALS, study.BEST, study.JOURNAL]


# --- comparisons -------------------------------------------------------------------------------------------


def test_the_keys_of_a_plan_are_documented_and_the_plan_of_the_page_is_one(tmp_path):
    page = tables(DOCS / "compare.md")
    for heading, config in {
        "A plan of your own": comparison.Plan,
        "`[[models]]`": comparison.ModelPlan,
        "`[[studies]]`": comparison.StudyPlan,
    }.items():
        assert keys(page[heading]) == list(config.model_fields)
        for (_, text, _), field in zip(page[heading], config.model_fields.values(), strict=True):
            assert (text == "required") == field.is_required()
            assert field.is_required() or default(text) == plain(field.default)
    (text,) = blocks(DOCS / "compare.md", "toml")
    (tmp_path / "plan.toml").write_text(text)
    plan = comparison.read_plan(str(tmp_path / "plan.toml"))
    assert {model.recipe for model in plan.models} <= set(recipe.packaged())


# --- the toy of extend.md ----------------------------------------------------------------------------------


def written(folder):
    """Writes the files that extend.md holds into a folder."""
    for text in blocks(DOCS / "extend.md", "python", "toml"):
        name = re.match(r"# (\w+\.\w+)\n", text)
        assert name, f"the first line of a block must name its file: {text[:40]!r}"
        (folder / name[1]).write_text(text)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of extend.md with its scripts run, and the working folder meanwhile."""
    folder = written(tmp_path_factory.mktemp("toy"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        try:
            for script in ("simulate.py", "run.py"):
                runpy.run_path(script)
            yield folder
        finally:
            for name in ("mydetector", "mymodel"):
                sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def scores(toy):
    """Scores of the toy with everything in them."""
    return evaluate_run(
        toy / "from-python" / "toy",
        [toy / "toy.h5"],
        repeats=1,
        settings=["brightest=50"],
        sweeps=[Sweep("brightest", ("40",))],
    ).content()


def test_the_toy_is_near_the_floor_and_the_yardstick_is_not(toy):
    lines = (toy / "from-python" / "table.txt").read_text().splitlines()[1:]
    ratio = {(name, metric): float(value) for name, metric, value in map(str.split, lines)}
    assert all(ratio["toy", metric] < 1.7 for metric in ("w1", "mae", "mae_c"))
    assert ratio["resample", "w1"] < 2.5
    assert ratio["resample", "mae_c"] > 10


def test_the_toy_generates_whole_photons_for_each_particle(toy):
    events = open_events(toy / "from-python" / "events.h5").slices(slice(None))
    assert events.detector.name == "mydetector:TOY"
    assert events.responses.shape == (1200, 12, 12)
    assert events.responses.dtype == "uint16"


def test_the_run_folder_is_as_documented(toy):
    run = toy / "from-python" / "toy"
    documented = set(keys(tables(DOCS / "formats.md")["The run folder"]))
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert found == documented - {
        "tensorboard/",
        "scores.json",
        "true_sums.json",
        "weights-2.safetensors",
        "generated/REFERENCE.h5",
    } | {"generated/toy.h5"}


def paths(value, at=""):
    """Returns the path of every key of a nested value; lists of mappings are written [], names stay as they are."""
    if isinstance(value, dict):
        inner = {f"{at}.{key}" if at else key: one for key, one in value.items()}
        return set(inner).union(*(paths(one, path) for path, one in inner.items()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(paths(one, f"{at}[]") for one in value))
    return set()


def test_the_card_is_as_documented(toy):
    card = json.loads((toy / "from-python" / "toy" / "card.json").read_text())
    assert paths(card) == set(keys(tables(DOCS / "formats.md")["card.json"]))


def test_the_log_is_as_documented(toy):
    with (toy / "from-python" / "toy" / "log.csv").open() as file:
        columns = next(csv.reader(file))
    documented = keys(tables(DOCS / "formats.md")["log.csv"])
    assert columns == [name.replace("...", "w1") for name in documented]


def with_placeholders(scores):
    """Returns the scores with SET, GROUP, METRIC and SETTING in place of names."""

    def merged(values):
        whole = {}
        for value in values:
            for key, one in value.items():
                both = isinstance(one, dict) and isinstance(whole.get(key), dict)
                whole[key] = (
                    merged([whole[key], one]) if both else one if one or key not in whole else whole[key]
                )
        return whole

    def of_sets(sets):
        groups = [merged([group]) for one in sets.values() for group in one["groups"].values()]
        for group in groups:
            group["metrics"] = {"METRIC": merged(group["metrics"].values())} if group["metrics"] else {}
        return {"SET": {**merged(sets.values()), "groups": {"GROUP": merged(groups)}}}

    sweep = [
        {**entry, "settings": {"SETTING": ""}, "sets": of_sets(entry["sets"])} for entry in scores["sweep"]
    ]
    return {**scores, "settings": {"SETTING": ""}, "sets": of_sets(scores["sets"]), "sweep": sweep}


def test_the_scores_are_as_documented(scores):
    found = {
        path for path in paths(with_placeholders(scores)) if not path.endswith(("SET", "GROUP", "METRIC"))
    }
    documented = set(keys(tables(DOCS / "formats.md")["scores.json"]))
    # what the page gives by reference to other keys
    swept = {path for path in found if path.startswith("sweep[].sets.")}
    times = {path for path in found if path.startswith("sweep[].ms_per_event.")}
    matched = {path for path in found - swept if ".matched_floor." in path}
    assert found - swept - times - matched == documented
    assert {path.removeprefix("sweep[].") for path in swept} | {"sets.SET.generated"} == {
        path for path in found if path.startswith("sets.")
    }
    assert {path.replace("sweep[]", "timing") for path in times} <= documented
    assert {path.replace("matched_", "") for path in matched} <= documented


def test_the_scores_show_what_the_page_says(scores):
    groups = scores["sets"]["toy"]["groups"]
    small = [group for group in groups.values() if group["n"] < 20]
    assert small
    assert all(group["metrics"] == {} and "20 rows" in group["reason"] for group in small)
    assert scores["settings"] == {"brightest": "50"}
    conditional = groups["all"]["metrics"]["conditional_w1"]
    assert conditional["mean"] is None
    assert "no bin of PDG id x thirds of energy, x, y has 30 events" in conditional["reason"]
    assert conditional["floor"] is None


def run(words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["caloforge", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code, words


@pytest.fixture(scope="module")
def sampled(toy):
    """Events of the toy made by the command line."""
    run(["sample", "from-python/toy", "toy.h5", "sampled.h5"])
    return toy / "sampled.h5"


def test_scores_of_events_have_the_same_keys(toy, scores, sampled):
    of_events = evaluate_events(sampled, [toy / "toy.h5"]).content()
    assert set(of_events) == set(scores)
    assert (of_events["type"], of_events["split"], of_events["part"]) == ("events", "canonical", "test")
    assert of_events["timing"] is None
    assert of_events["parameters"] is None


def test_hdf5_is_as_documented(toy):
    with h5py.File(toy / "toy.h5") as file:
        rows = tables(DOCS / "formats.md")["HDF5"]
        assert keys(rows) == list(dict.fromkeys([*("conditions", "pdg", "group", "fold"), *file]))
        for name, (_, shape, attributes) in zip(keys(rows), rows, strict=True):
            assert file[name].dtype in shape.split()
            assert sorted(file[name].attrs) == sorted(re.findall(r"`(\w+)`", attributes))
        assert set(file.attrs) == {"detector", "provenance"}


def test_csv_is_as_documented(toy):
    with create(toy / "zp.csv", ZP) as writer:
        writer.append(open_events(samples.sample("zp"), ZP).slices(slice(0, 2)))
    columns = (toy / "zp.csv").read_text().partition("\n")[0].split(",")
    assert columns[9:13] == ["pdg", "group", "fold", "total"]
    assert {"paper_quadrant_1", "o2_common"} <= set(columns)


def test_provenance_of_generated_events_is_as_documented(sampled):
    documented = keys(tables(DOCS / "formats.md")["Provenance of generated events"])
    assert set(provenance(sampled)) == set(documented)


@pytest.mark.slow
def test_the_commands_of_extend_run(toy):
    for words in commands(DOCS / "extend.md"):
        run(words)
    assert (toy / "toy.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.name)
def test_the_python_of_the_first_pages_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, code in enumerate(blocks(page, "python")):
        (tmp_path / f"block{number}.py").write_text(code)
        runpy.run_path(f"block{number}.py")
        assert re.search(r"\d+\.\d+", capsys.readouterr().out)
