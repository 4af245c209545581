"""Physics lists, particles, and the data sets that Geant4 reads.

The wheel brings Geant4's code, not its data sets: tables of cross sections, which the program looks for in folders
that environment variables name. Where one is missing, importing the wheel asks on standard input or downloads, and
the simulation aborts the process. So they are looked for here first, and the process that simulates is told all of
them. Each data set is taken from the first of these places that has it:

1. the folder given (`--g4data`), and then nowhere else;
2. the folder `GEANT4_DATA_DIR`;
3. its own variable, such as `G4LEDATA`;
4. `geant4-config --datasets` of an installed Geant4;
5. the folder of the wheel, `~/.geant4_pybind`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from caloforge._lookup import nearest

URL = "https://cern.ch/geant4-data/datasets"

DATA_DIR = "GEANT4_DATA_DIR"


@dataclass(frozen=True)
class DataSet:
    """One of Geant4's data sets.

    Attributes:
        name: as in its folder.
        version: that belongs to this version of Geant4.
        variable: environment variable that names its folder.
        archive: file name before the version.
        sha256: of the archive.
        megabytes: size of the archive, roughly.
    """

    name: str
    version: str
    variable: str
    archive: str
    sha256: str
    megabytes: float

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.name}{self.version}"

    @property
    def file(self) -> str:
        """Name of the archive."""
        return f"{self.archive}.{self.version}.tar.gz"


DATA_SETS = (
    DataSet(
        "G4EMLOW", "8.8", "G4LEDATA", "G4EMLOW",
        "b60cfd63176f5d16107e2a25b35b235155032d1735d749670ca50fede12624cf", 350,
    ),
    DataSet(
        "G4ENSDFSTATE", "3.0", "G4ENSDFSTATEDATA", "G4ENSDFSTATE",
        "4bdc3bd40b31d43485bf4f87f055705e540a6557d64ed85c689c59c9a4eba7d6", 0.3,
    ),
    DataSet(
        "G4PARTICLEXS", "4.2", "G4PARTICLEXSDATA", "G4PARTICLEXS",
        "c52bbf86aaa589b78aba80b16ab0adf1041ea300de5395865b97fcee6eb55851", 15,
    ),
    DataSet(
        "PhotonEvaporation", "6.1.2", "G4LEVELGAMMADATA", "G4PhotonEvaporation",
        "02149c0ab91d88ee24e78532558777e39a068b9fcdd199136101ff58e635e742", 10,
    ),
    DataSet(
        "G4NDL", "4.7.1", "G4NEUTRONHPDATA", "G4NDL",
        "d3acae48622118d2579de24a54d533fb2416bf0da9dd288f1724df1485a46c7c", 400,
    ),
    DataSet(
        "RadioactiveDecay", "6.1.2", "G4RADIOACTIVEDATA", "G4RadioactiveDecay",
        "a40d7e3ebc64d35555c4a49d0ff1e0945cd605d84354d053121293914caea13a", 1,
    ),
    DataSet(
        "G4PII", "1.3", "G4PIIDATA", "G4PII",
        "6225ad902675f4381c98c6ba25fc5a06ce87549aa979634d3d03491d6616e926", 4,
    ),
    DataSet(
        "RealSurface", "2.2", "G4REALSURFACEDATA", "G4RealSurface",
        "9954dee0012f5331267f783690e912e72db5bf52ea9babecd12ea22282176820", 125,
    ),
    DataSet(
        "G4SAIDDATA", "2.0", "G4SAIDXSDATA", "G4SAIDDATA",
        "1d26a8e79baa71e44d5759b9f55a67e8b7ede31751316a9e9037d80090c72e91", 0.1,
    ),
    DataSet(
        "G4ABLA", "3.3", "G4ABLADATA", "G4ABLA",
        "1e041b3252ee9cef886d624f753e693303aa32d7e5ef3bba87b34f36d92ea2b1", 0.1,
    ),
    DataSet(
        "G4INCL", "1.3", "G4INCLDATA", "G4INCL",
        "e4b3dbe52acef53536454e22443091212843821bd23628eed846d299599f3bf9", 0.1,
    ),
    DataSet(
        "G4CHANNELING", "2.0", "G4CHANNELINGDATA", "G4CHANNELING",
        "662159288644e07b79d7fe091efbebba52b59546b3dc6f5d285b976ad12f2d06", 0.1,
    ),
)  # fmt: skip

ELECTROMAGNETIC = DATA_SETS[:4]
"""What electromagnetic physics reads; the other lists read all."""

EM_LISTS = tuple(
    f"G4EmStandardPhysics{option}" for option in ("", "_option1", "_option2", "_option3", "_option4")
)

HADRONIC_LISTS = ("FTFP_BERT", "QGSP_BERT")

PHYSICS = (*EM_LISTS, *HADRONIC_LISTS)

EM_PARTICLES = {"e-": 11, "e+": -11, "gamma": 22, "mu-": 13, "mu+": -13}
"""PDG ids of what electromagnetic physics knows, by Geant4's names."""

PARTICLES = EM_PARTICLES | {
    "proton": 2212,
    "anti_proton": -2212,
    "neutron": 2112,
    "anti_neutron": -2112,
    "pi+": 211,
    "pi-": -211,
    "pi0": 111,
    "kaon+": 321,
    "kaon-": -321,
    "kaon0L": 130,
    "kaon0S": 310,
    "lambda": 3122,
}


def check_physics(physics: str, particle: str) -> None:
    """Checks that there is such a list, such a particle, and that the one knows the other.

    Raises:
        ValueError: they do not fit together.
    """
    if physics not in PHYSICS:
        raise ValueError(f"no physics {physics!r}; there are {', '.join(PHYSICS)}{nearest(physics, PHYSICS)}")
    if particle not in PARTICLES:
        raise ValueError(
            f"no particle {particle!r}; there are {', '.join(PARTICLES)}{nearest(particle, PARTICLES)}"
        )
    if physics in EM_LISTS and particle not in EM_PARTICLES:
        raise ValueError(
            f"{physics} is electromagnetic and knows {', '.join(EM_PARTICLES)}, got {particle}: "
            f"choose one of {', '.join(HADRONIC_LISTS)}"
        )


def needed(physics: str) -> tuple[DataSet, ...]:
    """Returns the data sets that a physics list reads."""
    return ELECTROMAGNETIC if physics in EM_LISTS else DATA_SETS


Origin = Literal["official", "substitutes"]


@dataclass(frozen=True)
class DataFolders:
    """Where the data sets are.

    Attributes:
        folders: the folder of each, by its variable.
        origin: `official`, or `substitutes` where the electromagnetic tables are not Geant4's own.
    """

    folders: Mapping[str, Path]
    origin: Origin

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Returns an environment in which Geant4 finds these data sets, and no others.

        Args:
            base: the other variables.
        """
        environment = {
            name: value
            for name, value in base.items()
            if name not in {data_set.variable for data_set in DATA_SETS}
        }
        # without this variable importing the wheel asks, and in CI it downloads
        environment[DATA_DIR] = str(self.folders[DATA_SETS[0].variable].parent)
        return environment | {name: str(folder) for name, folder in self.folders.items()}


def wheel_cache() -> Path:
    """Returns the folder to which the wheel downloads data sets."""
    return Path.home() / ".geant4_pybind"


def download_folder() -> Path:
    """Returns the folder to which data sets are downloaded where none is given: `GEANT4_DATA_DIR`, or the wheel's."""
    return Path(os.environ.get(DATA_DIR) or wheel_cache())


def _configured() -> dict[str, Path]:
    """Asks an installed Geant4 for its data sets, by variable."""
    program = shutil.which("geant4-config")
    if program is None:
        return {}
    try:
        answer = subprocess.run(  # noqa: S603
            [program, "--datasets"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = [line.split() for line in answer.stdout.splitlines()]  # name, variable, folder
    return {line[1]: Path(line[2]) for line in lines if len(line) == 3}


def find_data(
    physics: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> DataFolders:
    """Finds the data sets that a physics list reads, in the places that the head of this module lists.

    Args:
        physics: the list.
        folder: the only place to look at.
        environment: variables; those of this process where not given.

    Raises:
        ValueError: some are missing; the message names them with their sizes, and where they were looked for. Or a
            hadronic list with substitutes.
    """
    variables = os.environ if environment is None else environment
    data_sets = needed(physics)
    configured: dict[str, Path] | None = None
    folders: dict[str, Path] = {}
    missing: list[DataSet] = []
    for data_set in data_sets:
        if folder is not None:
            places = [folder / data_set.folder]
        else:
            places = [Path(variables[DATA_DIR]) / data_set.folder] if variables.get(DATA_DIR) else []
            places += [Path(variables[data_set.variable])] if variables.get(data_set.variable) else []
        place = next(filter(Path.is_dir, places), None)
        if place is None and folder is None:
            configured = _configured() if configured is None else configured
            places = [configured[data_set.variable]] if data_set.variable in configured else []
            place = next(filter(Path.is_dir, [*places, wheel_cache() / data_set.folder]), None)
        if place is None:
            missing.append(data_set)
        else:
            folders[data_set.variable] = place.resolve()
    if missing:
        raise ValueError(_missing(missing, physics, folder))
    origin = _origin(folders[DATA_SETS[0].variable])
    if origin == "substitutes" and physics in HADRONIC_LISTS:
        raise ValueError(
            f"{physics} needs the official data sets, and {folders[DATA_SETS[0].variable]} holds substitutes for "
            "electromagnetic physics: give others with --g4data, or --download"
        )
    return DataFolders(folders, origin)


def _missing(missing: Sequence[DataSet], physics: str, folder: Path | None) -> str:
    sets = ", ".join(f"{data_set.folder} (about {data_set.megabytes:g} MB)" for data_set in missing)
    where = (
        f"in {folder}"
        if folder is not None
        else f"in {DATA_DIR}, {missing[0].variable}, geant4-config or {wheel_cache()}"
    )
    return f"{physics} needs the Geant4 data sets {sets}, not found {where}: give --g4data DIR, or --download"


def _origin(emlow: Path) -> Origin:
    # every archive of G4EMLOW has these; tables made by others have no reason to
    official = (emlow / "epics2017" / "README").is_file() or (emlow / "livermore" / "README").is_file()
    return "official" if official else "substitutes"


def download(
    physics: str,
    folder: Path,
    url: str = URL,
    data_sets: Sequence[DataSet] | None = None,
    progress: Callable[[str, int, int], object] = lambda name, done, total: None,
) -> list[str]:
    """Downloads what a physics list reads and a folder lacks; each data set appears whole or not at all.

    Args:
        physics: the list.
        folder: gets one folder a data set; made where it is missing.
        url: of the folder that holds the archives.
        data_sets: the sets wanted; those of the list where not given.
        progress: called with the name of the archive, bytes read, and all of them (0 where unknown).

    Returns:
        names of the folders that are new.

    Raises:
        OSError: a download failed, or the disk is full.
        ValueError: an archive is not the official one: its hash differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = []
    for data_set in data_sets if data_sets is not None else needed(physics):
        if not (folder / data_set.folder).is_dir():
            with tempfile.TemporaryDirectory(prefix=f".{data_set.folder}-", dir=folder) as scratch:
                archive = Path(scratch) / data_set.file
                _fetch(f"{url}/{data_set.file}", archive, data_set, progress)
                with tarfile.open(archive) as tar:
                    tar.extractall(scratch, filter="data")
                if not (Path(scratch) / data_set.folder).is_dir():
                    raise ValueError(f"{url}/{data_set.file} holds no folder {data_set.folder}")
                (Path(scratch) / data_set.folder).replace(folder / data_set.folder)
            new.append(data_set.folder)
    return new


def _fetch(url: str, archive: Path, one: DataSet, progress: Callable[[str, int, int], object]) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"data sets come by http or https, got {url}")
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:  # noqa: S310
            total = int(answer.headers.get("Content-Length") or 0)
            while block := answer.read(2**20):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress(one.file, done, total)
    except urllib.error.HTTPError as error:
        raise OSError(f"cannot download {url}: {error}") from error
    except OSError as error:  # a URLError too, whose reason says more than it does
        raise OSError(f"cannot download {url}: {getattr(error, 'reason', error)}") from error
    if digest.hexdigest() != one.sha256:
        raise ValueError(
            f"{url} is not the official archive: its SHA-256 is {digest.hexdigest()}, wanted {one.sha256}"
        )
