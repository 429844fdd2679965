import io

import numpy as np

from sb3_softac.envs import MultiGoal
from sb3_softac.sql.pictures import draw_multigoal, trajectories
from tests.sql.helpers import make_model


def test_trajectories_start_near_the_origin_and_end_at_a_goal_or_the_time_limit():
    paths = trajectories(make_model("MultiGoal-v0"), 6, max_steps=5)
    assert len(paths) == 6 and len({len(path) for path in paths} - {6}) == 0
    assert all(np.abs(path[0]).max() < 0.5 and np.abs(np.diff(path, axis=0)).max() <= 1.0 for path in paths)

    class ToTheEast:
        def predict(self, obs):
            return np.tile([1.0, 0.0], (len(obs), 1)), None

    for path in trajectories(ToTheEast(), 3):
        assert ((path[-1] - MultiGoal.goals[0]) ** 2).sum() < 1 and len(path) in (5, 6)


def test_picture_has_a_map_and_a_panel_per_probe():
    figure = draw_multigoal(make_model("MultiGoal-v0"), n_trajectories=3, n_actions=7, probes=((0.0, 0.0), (2.5, 2.5)))
    first, *others = figure.axes
    assert len(others) == 2 and len(first.lines) == 4  # three episodes and the goals
    assert all(len(axes.lines[0].get_xdata()) == 7 for axes in others)
    figure.savefig(io.BytesIO())
