import pytest
import torch

from caloforge.optim import AdamConfig, build, cosine_factor, update_average


def test_the_cosine_cycle_has_the_papers_ends_and_peak():
    assert cosine_factor(0, 1000, 0.2) == pytest.approx(1 / 25)
    assert cosine_factor(200, 1000, 0.2) == pytest.approx(1.0)
    assert cosine_factor(1000, 1000, 0.2) == pytest.approx(1 / 25_000)
    rates = [cosine_factor(step, 1000, 0.2) for step in range(1001)]
    assert max(rates) == rates[200]


def test_the_schedule_agrees_with_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    ours, schedule = build([parameter], AdamConfig(learning_rate=0.1, schedule="cosine"), 100)
    theirs = torch.optim.SGD([parameter], lr=1.0)
    # torch puts peak and end one step earlier
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        0.1,
        total_steps=101,
        pct_start=0.2,
        div_factor=25,
        final_div_factor=1000,
        cycle_momentum=False,
    )
    for _ in range(100):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=0.1, abs=1e-4)
        ours.step()
        theirs.step()
        schedule.step()
        reference.step()


def test_the_average_follows_the_weights():
    average, module = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(average.weight, 1.0)
    torch.nn.init.constant_(module.weight, 2.0)
    update_average(average, module, 0.9, step=10_000)
    assert average.weight.item() == pytest.approx(1.1)
    update_average(average, module, 0.9, step=0)  # at the start the weights themselves count
    assert average.weight.item() == pytest.approx(1.1 + 0.9 * 0.9)
