"""Switching modes: SB3 asks for it at every step of the loop, and nothing is done where nothing would change."""

import pytest
from torch import nn

from sb3_softac.nets.base import switch_mode


class CountsSwitches(nn.Dropout):
    switches = 0

    def train(self, mode=True):
        self.switches += 1
        return super().train(mode)


def test_what_is_in_the_mode_already_is_left_alone(monkeypatch):
    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout()))
    network[1].register_module("nothing", None)
    switch_mode(network, False)
    assert not any(module.training for module in network.modules())
    monkeypatch.setattr(nn.Module, "__setattr__", lambda *args: pytest.fail("a mode was set again"))
    switch_mode(network, False)


@pytest.mark.parametrize("part", ["the outermost", "the innermost"])
def test_one_part_in_the_other_mode_is_enough(part):
    network = nn.Sequential(nn.Sequential(nn.Dropout())).eval()
    (network if part == "the outermost" else network[0][0]).training = True
    switch_mode(network, False)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("own", ["a method of its class", "a method of its own"])
def test_modules_with_a_train_of_their_own_are_always_asked(own):
    part = CountsSwitches() if own == "a method of its class" else nn.Dropout()
    if own == "a method of its own":
        part.switches = 0
        part.train = lambda mode: setattr(part, "switches", part.switches + 1)
    network = nn.Sequential(part)
    for _ in range(3):
        switch_mode(network, True)
    assert part.switches == 3
