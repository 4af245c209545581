import torch

from caloforge.nn.quantizer import Codebook, ProjectedCodebook, straight_through, usage


def test_codes_find_the_directions_of_clusters():
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    book = Codebook(12, 8, decay=0.8, dead=0.5)
    for _ in range(60):
        z = 3 * directions[torch.randint(6, (300,))] + 0.1 * torch.randn(300, 8)
        book.follow(z, book(z), torch.rand(12))
    found = book.lookup(book(directions))
    assert ((found * directions).sum(1) > 0.9).all()  # two clusters may share a code
    torch.testing.assert_close(book.vectors().norm(dim=1), torch.ones(12))


def test_dead_codes_are_revived():
    torch.manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(64, 4), dim=1)
    book = Codebook(16, 4, decay=0.5, dead=0.5)
    book.sums.copy_(torch.tensor([1.0, 0, 0, 0]).expand(16, 4))  # all the same: one takes every vector
    shares = []
    for _ in range(10):
        indices = book(z)
        shares.append(usage(indices, 16)[0])
        book.follow(z, indices, torch.rand(16))
    assert shares[0] == 1 / 16
    assert shares[-1] > 0.7


def test_the_gradient_passes_straight_through():
    z = torch.randn(3, 4, requires_grad=True)
    code = torch.randn(3, 4)
    out = straight_through(z, code)
    torch.testing.assert_close(out, code)
    out.sum().backward()
    torch.testing.assert_close(z.grad, torch.ones(3, 4))


def test_length_does_not_matter():
    torch.manual_seed(0)
    z = torch.randn(10, 8)
    for book in (Codebook(5, 8, 0.9, 1.0), ProjectedCodebook(5, 8, 4)):
        assert torch.equal(book(z), book(7 * z))


def test_usage_and_perplexity():
    assert usage(torch.tensor([0, 1, 2, 3]), 8) == (0.5, 4.0)
    share, perplexity = usage(torch.tensor([0, 0, 0, 1]), 2)
    assert share == 1
    assert abs(perplexity - 4 / 3**0.75) < 1e-6
