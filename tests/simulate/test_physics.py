"""Data sets: where they are looked for, what is said when they are missing, and how they are downloaded."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import tarfile
import threading

import pytest

from caloforge.simulate import physics
from caloforge.simulate.physics import (
    DATA_SETS,
    ELECTROMAGNETIC,
    PHYSICS,
    check_physics,
    download,
    find_data,
    needed,
)

EM = "G4EmStandardPhysics"


def make_sets(folder, sets=ELECTROMAGNETIC, official=False):
    for one in sets:
        (folder / one.folder).mkdir(parents=True)
    if official:
        (folder / "G4EMLOW8.8" / "epics2017").mkdir()
        (folder / "G4EMLOW8.8" / "epics2017" / "README").touch()
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data sets of this machine are found."""
    monkeypatch.setattr(physics, "wheel_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(physics, "_configured", dict)
    for name in (physics.DATA_DIR, *(one.variable for one in DATA_SETS)):
        monkeypatch.delenv(name, raising=False)


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    places = {name: make_sets(tmp_path / name) for name in ("given", "folder", "variable", "config", "cache")}
    variables = {one.variable: str(places["variable"] / one.folder) for one in ELECTROMAGNETIC}
    configured = {one.variable: places["config"] / one.folder for one in ELECTROMAGNETIC}
    monkeypatch.setattr(physics, "_configured", lambda: configured)

    def place(environment, folder=None):
        (parent,) = {path.parent.name for path in find_data(EM, folder, environment).folders.values()}
        return parent

    both = {physics.DATA_DIR: str(places["folder"]), **variables}
    assert place(both, places["given"]) == "given"
    assert place(both) == "folder"
    assert place(variables) == "variable"
    assert place({}) == "config"
    monkeypatch.setattr(physics, "_configured", dict)
    assert place({}) == "cache"


def test_each_set_may_lie_elsewhere(tmp_path):
    first = make_sets(tmp_path / "first", ELECTROMAGNETIC[:2])
    second = make_sets(tmp_path / "second", ELECTROMAGNETIC[2:])
    variables = {physics.DATA_DIR: str(first)}
    variables |= {one.variable: str(second / one.folder) for one in ELECTROMAGNETIC[2:]}
    found = find_data(EM, None, variables).folders
    assert [found[one.variable].parent.name for one in ELECTROMAGNETIC] == [
        "first",
        "first",
        "second",
        "second",
    ]


def test_a_folder_that_is_given_is_the_only_place(tmp_path):
    make_sets(tmp_path / "cache")
    given = make_sets(tmp_path / "given", ELECTROMAGNETIC[1:])
    with pytest.raises(
        ValueError, match=r"needs the Geant4 data sets G4EMLOW8.8 \(about 350 MB\), not found in .*given"
    ):
        find_data(EM, given, {})


def test_what_is_missing_is_named_with_its_size():
    with pytest.raises(ValueError, match="FTFP_BERT needs the Geant4 data sets") as error:
        find_data("FTFP_BERT", None, {})
    message = str(error.value)
    assert "\n" not in message
    for one in DATA_SETS:
        assert f"{one.folder} (about {one.megabytes:g} MB)" in message
    assert "--download" in message


def test_substitutes_are_told_from_the_official_sets(tmp_path):
    assert find_data(EM, make_sets(tmp_path / "a"), {}).origin == "substitutes"
    assert find_data(EM, make_sets(tmp_path / "b", official=True), {}).origin == "official"
    with pytest.raises(ValueError, match="FTFP_BERT needs the official data sets"):
        find_data("FTFP_BERT", make_sets(tmp_path / "c", DATA_SETS), {})
    folders = find_data("FTFP_BERT", make_sets(tmp_path / "d", DATA_SETS, official=True), {}).folders
    assert len(folders) == len(DATA_SETS)


def test_geant4_is_told_every_folder_and_never_asks(tmp_path):
    data = find_data(EM, make_sets(tmp_path / "data"), {})
    environment = data.environment({"G4LEDATA": "/old", "G4NEUTRONHPDATA": "/old", "PATH": "/bin"})
    assert environment["G4LEDATA"] == str(tmp_path / "data" / "G4EMLOW8.8")
    assert environment[physics.DATA_DIR] == str(tmp_path / "data")
    assert environment["PATH"] == "/bin"
    assert "G4NEUTRONHPDATA" not in environment


def test_geant4_config_is_read(tmp_path, monkeypatch):
    monkeypatch.undo()
    program = tmp_path / "geant4-config"
    program.write_text(
        "#!/bin/sh\necho G4EMLOW G4LEDATA /data/G4EMLOW8.8\necho G4NDL G4NEUTRONHPDATA /data/G4NDL4.7.1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = physics._configured()
    assert {name: str(path) for name, path in found.items()} == {
        "G4LEDATA": "/data/G4EMLOW8.8",
        "G4NEUTRONHPDATA": "/data/G4NDL4.7.1",
    }


@pytest.mark.parametrize(
    ("name", "particle", "message"),
    [
        ("G4EmStandardPhysic", "e-", "no physics .*did you mean 'G4EmStandardPhysics'"),
        (EM, "positron", "no particle 'positron'"),
        (EM, "neutron", "is electromagnetic and knows e-, .*got neutron"),
    ],
)
def test_physics_and_particle_must_fit(name, particle, message):
    with pytest.raises(ValueError, match=message):
        check_physics(name, particle)


def test_electromagnetic_lists_need_four_sets():
    assert {name: len(needed(name)) for name in PHYSICS} == dict.fromkeys(PHYSICS[:5], 4) | dict.fromkeys(
        PHYSICS[5:], len(DATA_SETS)
    )


# --- download ------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/datasets"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def mirror(tmp_path):
    """A server with two data sets, and what these are."""
    folder = tmp_path / "mirror" / "datasets"
    folder.mkdir(parents=True)
    sets = []
    for one in ELECTROMAGNETIC[:2]:
        content = tmp_path / "content" / one.folder
        content.mkdir(parents=True)
        (content / "table").write_text(one.name)
        with tarfile.open(folder / one.file, "w:gz") as tar:
            tar.add(content, one.folder)
        digest = hashlib.sha256((folder / one.file).read_bytes()).hexdigest()
        sets.append(dataclasses.replace(one, sha256=digest))
    with serving(folder.parent) as url:
        yield url, sets


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_missing_sets_are_downloaded_once(mirror, tmp_path):
    url, sets = mirror
    data = tmp_path / "data"
    seen = []
    assert download(EM, data, url, sets, lambda *call: seen.append(call)) == ["G4EMLOW8.8", "G4ENSDFSTATE3.0"]
    assert (data / "G4EMLOW8.8" / "table").read_text() == "G4EMLOW"
    assert names(data) == ["G4EMLOW8.8", "G4ENSDFSTATE3.0"]
    assert all(0 < done == total for _, done, total in seen)
    assert download(EM, data, url, sets) == []


def test_another_archive_is_refused_and_leaves_nothing(mirror, tmp_path):
    url, sets = mirror
    wrong = [sets[0], ELECTROMAGNETIC[1]]
    with pytest.raises(ValueError, match=r"G4ENSDFSTATE\.3\.0\.tar\.gz is not the official archive"):
        download(EM, tmp_path / "data", url, wrong)
    assert names(tmp_path / "data") == ["G4EMLOW8.8"]


def test_a_download_that_fails_says_so(mirror, tmp_path):
    url, _ = mirror
    with pytest.raises(
        OSError, match=r"cannot download http://127.*G4PARTICLEXS\.4\.2\.tar\.gz: HTTP Error 404"
    ):
        download(EM, tmp_path / "data", url, ELECTROMAGNETIC[2:3])
    assert names(tmp_path / "data") == []
    with pytest.raises(ValueError, match="by http or https"):
        download(EM, tmp_path / "data", "file:///etc", ELECTROMAGNETIC[2:3])


def test_every_official_archive_has_a_hash():
    assert len({one.sha256 for one in DATA_SETS}) == len(DATA_SETS)
    assert all(len(one.sha256) == 64 for one in DATA_SETS)
