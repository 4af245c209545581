import torch

from caloforge.nn.fewer_blocks import start_from
from caloforge.nn.velocity_network import VelocityNetwork


def test_the_blocks_taken_are_evenly_spaced_and_the_rest_is_the_teachers():
    teacher, student = VelocityNetwork(3, 5, 8, 5), VelocityNetwork(3, 5, 8, 3, until=True)
    before = {name: weights.clone() for name, weights in student.until.state_dict().items()}
    start_from(student, teacher)
    for own, origin in enumerate((0, 2, 4)):
        for name, weights in student.blocks[own].state_dict().items():
            assert torch.equal(weights, teacher.blocks[origin].state_dict()[name])
    assert torch.equal(student.first.weight, teacher.first.weight)
    assert all(torch.equal(weights, before[name]) for name, weights in student.until.state_dict().items())


def test_as_many_blocks_are_all_taken():
    teacher, student = VelocityNetwork(3, 5, 8, 4), VelocityNetwork(3, 5, 8, 4)
    start_from(student, teacher)
    for name, weights in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[name], weights)
