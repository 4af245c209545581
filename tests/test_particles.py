import pytest

from caloforge.particles import particle_name, pdg_ids


@pytest.mark.parametrize(
    ("pdg", "name"),
    [
        (22, "gamma"),
        (2112, "n"),
        (-2112, "n~"),
        (2212, "p"),
        (3122, "Lambda"),
        (310, "K(S)0"),
        (130, "K(L)0"),
        (211, "pi+"),
        (-211, "pi-"),
        (3222, "Sigma+"),
    ],
)
def test_names_are_those_of_the_pdg_tables(pdg, name):
    assert particle_name(pdg) == name
    assert pdg_ids([name]) == [pdg]
    assert pdg_ids([str(pdg)]) == [pdg]


def test_unknown_ids_name_themselves():
    assert particle_name(99_999_999) == "99999999"
    assert pdg_ids(["99999999"]) == [99_999_999]


def test_names_keep_their_order():
    assert pdg_ids(["n", "gamma", "-211"]) == [2112, 22, -211]
    assert pdg_ids([]) == []


def test_unknown_names_give_the_nearest():
    with pytest.raises(ValueError, match=r"no particle 'Lamda' in the PDG tables, did you mean 'Lambda'\?"):
        pdg_ids(["n", "Lamda"])
