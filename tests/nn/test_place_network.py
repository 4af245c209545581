import torch

from caloforge.nn.place_network import PlaceNetwork


def test_starts_halfway_between_the_guess_and_the_middle():
    network = PlaceNetwork((44, 30), 3, 8)
    torch.nn.init.zeros_(network.layers[-1].bias)
    guess = torch.tensor([[0.0, 0.0], [21.5, 14.5], [1e6, -1e6]])
    place = network(guess, torch.randn(3, 3))
    torch.testing.assert_close(place[:2], torch.tensor([[10.75, 7.25], [21.5, 14.5]]))
    # a line far beside the image counts as just outside
    torch.testing.assert_close(place[2], torch.tensor([(21.5 + 55) / 2, (14.5 - 7.5) / 2]))
