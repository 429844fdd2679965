"""The playground computes what the solvers compute, in a browser or in Node, and its pages stand by themselves."""

import json
import shutil
import subprocess
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from sb3_softac.envs import MultiGoal
from sb3_softac.tabular import TabularMDP, playground, soft_policy_iteration, write_playground
from sb3_softac.tabular.__main__ import main

GRID = ["..........", "..........", "...###....", "S..###...G", "...###....", "..........", ".XXXXXXXX."]
GRID_WALLS = [cell for cell, mark in enumerate("".join(GRID)) if mark == "#"]
# Task, temperature, discount, reward of the goal on the right, walls
SETTINGS = [
    ("gridWorld", 0.05, 0.95, 10, GRID_WALLS),
    ("gridWorld", 0.5, 0.95, 10, GRID_WALLS),
    ("gridWorld", 0.5, 0.99, 20, []),
    ("gridWorld", 1.0, 0.5, 0, GRID_WALLS),
    ("gridWorld", 2.0, 0.9, 15, [4, 14, 24, 34, 44, 54]),
    ("gridWorld", 5.0, 0.99, 10, GRID_WALLS),
    ("multiGoal", 2.0, 0.99, 10, []),
    ("multiGoal", 10.0, 0.99, 10, []),
    ("multiGoal", 10.0, 0.9, 30, [930, 750]),
    ("multiGoal", 30.0, 0.95, -20, [930]),
]
SOLVE = """settings => settings.map(([task, temperature, discount, goalReward, walls]) => {
    const mdp = Playground[task]().build({goalReward, walls});
    const {v, value, return: expected, entropy} = Playground.solve(mdp, temperature, discount);
    return [...v, value, expected, entropy];
})"""


def in_node(function, data):
    """:return: What a JavaScript function, which knows the playground, makes of some data."""
    program = "const Playground = require(process.argv[1]), data = JSON.parse(require('fs').readFileSync(0));"
    program += f"console.log(JSON.stringify(({function})(data)));"
    command = ["node", "-e", program, str(Path(playground.__file__).with_suffix(".js"))]
    return json.loads(subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, check=True).stdout)


def deterministic(moves, rewards, discount, terminal, start):
    """An MDP from the next states and the rewards ``[n_states, n_actions]``."""
    moves, rewards = (
        np.where(terminal[:, None], np.arange(len(moves))[:, None], moves),
        np.where(terminal[:, None], 0.0, rewards),
    )
    transitions = sparse.csr_matrix((np.ones(moves.size), (np.arange(moves.size), moves.ravel())), (moves.size, len(moves)))
    return TabularMDP.from_arrays(
        transitions, rewards, discount, np.flatnonzero(terminal), (np.arange(len(moves)) == start).astype(float)
    )


def grid_world(discount, goal_reward, walls):
    marks, columns = np.array(list("".join(GRID))), len(GRID[0])
    row, column = np.divmod(np.arange(len(marks)), columns)
    moves = []
    for right, down in [(1, 0), (0, 1), (-1, 0), (0, -1)]:
        x, y = column + right, row + down
        target = np.clip(y, 0, len(GRID) - 1) * columns + np.clip(x, 0, columns - 1)
        moves.append(np.where(np.isin(target, walls), row * columns + column, target))
    moves = np.stack(moves, axis=1)
    rewards = -1.0 + np.where(marks[moves] == "G", goal_reward, 0) - np.where(marks[moves] == "X", 10, 0)
    start = int(np.flatnonzero(marks == "S")[0])
    return deterministic(moves, rewards, discount, np.isin(marks, ["G", "X"]), start), np.ones(4)


def multi_goal(discount, goal_reward, walls):
    """MultiGoal itself, one step from each position of a grid of spacing 1/3, and the areas that the actions stand for."""
    line, act = np.arange(-21, 22), np.arange(-3, 4)
    places = np.array([(x, y) for y in line[::-1] for x in line])
    actions = np.array([(x, y) for y in act[::-1] for x in act])
    env = MultiGoal()
    env.obstacles = tuple((*places[wall] / 3, 0.6) for wall in walls)
    targets = (places[:, None] + actions).clip(-21, 21)
    for number in np.flatnonzero((np.linalg.norm(places[:, None] - places[walls], axis=-1) < 8).any(axis=1)):
        env.reset(options={"position": places[number] / 3})
        for action, move in enumerate(actions / 3):
            env.position = places[number] / 3
            if np.array_equal(env.step(move)[0], np.float32(places[number] / 3)):
                targets[number, action] = places[number]
    squares = ((targets[:, :, None] / 3 - env.goals) ** 2).sum(axis=-1)
    pays = np.where(squares.argmin(axis=-1) == 0, goal_reward, env.goal_reward)
    rewards = -env.action_cost * ((actions / 3) ** 2).sum(axis=1) - squares.min(axis=-1) + pays * (squares.min(axis=-1) < 1)
    moves = (21 - targets[..., 1]) * 43 + targets[..., 0] + 21
    terminal = ((places[:, None] / 3 - env.goals) ** 2).sum(axis=-1).min(axis=-1) < 1
    areas = np.prod(np.where(np.abs(actions) == 3, 0.5, 1.0), axis=1) / 9
    return deterministic(moves, rewards, discount, terminal, len(places) // 2), areas


def exact_policy(mdp, areas, temperature):
    # An integral over actions is a sum in which each action is paid the entropy of its area
    paid = np.where(mdp.terminal[:, None], 0.0, mdp.rewards + temperature * np.log(areas))
    solution = soft_policy_iteration(TabularMDP(mdp.transitions, paid, mdp.discount, mdp.terminal, mdp.initial), temperature)
    rows = np.repeat(np.arange(mdp.n_states), mdp.n_actions)
    chain = sparse.csr_matrix((solution.pi.ravel(), (rows, mdp.transitions.indices)), (mdp.n_states, mdp.n_states))
    return solution, chain


def exact(task, temperature, discount, goal_reward, walls):
    """Soft values, and those of the start with their two parts, by the solvers of the package."""
    mdp, areas = {"gridWorld": grid_world, "multiGoal": multi_goal}[task](discount, goal_reward, walls)
    solution, chain = exact_policy(mdp, areas, temperature)
    chain = sparse.diags((~mdp.terminal).astype(float)) @ chain
    returns = spsolve(
        sparse.identity(mdp.n_states, format="csc") - discount * chain.tocsc(), (solution.pi * mdp.rewards).sum(axis=1)
    )
    value, expected = mdp.initial @ solution.v, mdp.initial @ returns
    return [*solution.v, value, expected, (value - expected) / temperature]


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_node_finds_the_exact_solutions():
    for setting, found in zip(SETTINGS, in_node(SOLVE, SETTINGS), strict=True):
        np.testing.assert_allclose(found, exact(*setting), atol=1e-6, rtol=0, err_msg=str(setting[:4]))


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node")
def test_page_of_an_own_mdp_has_its_solution(tmp_path):
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1", discount=0.99)
    write_playground(mdp, tmp_path / "lake.html", columns=4)
    tables = json.loads((tmp_path / "lake.html").read_text().split("Playground.tables = ")[1].split(";\n</script>")[0])
    found = in_node("tables => [...Playground.solve(Playground.fromTables(tables).build(), 0.05, 0.99).v]", tables)
    np.testing.assert_allclose(found, soft_policy_iteration(mdp, 0.05).v, atol=1e-6, rtol=0)


def test_page_stands_by_itself(tmp_path):
    mdp = TabularMDP.from_gymnasium("CliffWalking-v1", discount=0.9)
    write_playground(mdp, tmp_path / "cliff.html", title="a <b>", columns=12)
    page = (tmp_path / "cliff.html").read_text()
    assert "a &lt;b&gt;</h1>" in page and "<b>" not in page
    assert not any(mark in page for mark in (" src=", " href=", "http:", "https:", "@import", "url("))


@pytest.mark.parametrize(
    ("env", "columns", "expected"),
    [
        ("FrozenLake-v1", 4, [[-1, 0], [0, 1], [1, 0], [0, -1]]),
        ("CliffWalking-v1", 12, [[0, -1], [1, 0], [0, 1], [-1, 0]]),
        ("FrozenLake-v1", 17, [[1, 0], [0, 1], [-1, 0], [0, -1]]),  # no grid: spokes
    ],
)
def test_actions_point_where_they_lead(env, columns, expected):
    found = playground.directions(TabularMDP.from_gymnasium(env, discount=0.9), columns)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_no_page_can_show_is_refused(tmp_path, monkeypatch):
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1", discount=0.9)
    with pytest.raises(ValueError, match="columns must be an integer, at least 1, got 0"):
        write_playground(mdp, tmp_path / "none.html", columns=0)
    for discount in (0.3, 0.995):
        other = TabularMDP.from_gymnasium("FrozenLake-v1", discount=discount)
        with pytest.raises(ValueError, match=f"discounts from 0.5 to 0.99 in steps of 0.01, not {discount}"):
            write_playground(other, tmp_path / "none.html")
    monkeypatch.setattr(playground, "MAX_ENTRIES", 100)
    with pytest.raises(ValueError, match="more than the 100 that a page can solve"):
        write_playground(mdp, tmp_path / "large.html")
    assert not list(tmp_path.iterdir())


def test_command_writes_the_page_and_opens_it(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    main(["play", "FrozenLake-v1", "--to", str(tmp_path / "lake.html")])
    assert opened == [(tmp_path / "lake.html").as_uri()]
    assert '"columns": 4' in (tmp_path / "lake.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "lake.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CartPole-v1"], "has no transition table P"),
        (["NoSuchEnv-v0"], "NoSuchEnv"),
        (["FrozenLake-v1", "--discount", "1"], "discount must be in"),
        (["FrozenLake-v1", "--columns", "0"], "columns must be an integer, at least 1"),
        (["FrozenLake-v1", "--to", "missing/lake.html"], "missing/lake.html"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_says_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(["play", *arguments])


def test_answers_of_the_course():
    """What the page says of the goals of MultiGoal."""

    def shares(temperature, goal_reward, walls):
        mdp, areas = multi_goal(0.99, goal_reward, walls)
        chain, where = exact_policy(mdp, areas, temperature)[1].T, mdp.initial
        for _ in range(30):
            where = chain @ where
        right, up = np.meshgrid(np.arange(-21, 22), np.arange(21, -22, -1))
        return [100 * where[(mdp.terminal & (side.ravel() > 9))].sum() for side in (right, -right, up, -up)]

    page = " ".join((Path(__file__).parents[2] / "docs" / "teach" / "playground.md").read_text().split())
    plain, better, cold, wall = shares(10, 10, []), shares(10, 20, []), shares(2, 20, []), shares(10, 10, [930])
    assert f"{better[0]:.0f} % of the episodes instead of {plain[0]:.0f} %, {better[0] / better[1]:.1f} times as often" in page
    assert f"{cold[0]:.0f} % of the episodes end there" in page
    assert f"{wall[0]:.0f} % of the episodes still go around it, and {wall[1]:.0f} % end at each of the others" in page
    assert wall[1:] == pytest.approx([wall[1]] * 3, abs=0.1)
