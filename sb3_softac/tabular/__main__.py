"""``python -m sb3_softac.tabular play FrozenLake-v1`` writes a playground for an environment, and opens it in a browser."""

import argparse
import sys
import webbrowser
from pathlib import Path

import gymnasium as gym

from sb3_softac.tabular import TabularMDP, write_playground


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sb3_softac.tabular", description="Exact solutions of finite MDPs.")
    commands = parser.add_subparsers(dest="command", required=True)
    play = commands.add_parser("play", help="a page on which to change the temperature and discount of a small environment")
    play.add_argument("env", help="registered name of an environment with a transition table P, such as FrozenLake-v1")
    play.add_argument(
        "--discount", type=float, default=0.99, help="discount at the start, from 0.5 to 0.99 in steps of 0.01 (default: 0.99)"
    )
    play.add_argument("--columns", type=int, help="states per row (default: as in the environment, or a square)")
    play.add_argument("--to", type=Path, default=Path("playground.html"), help="file to write (default: playground.html)")
    args = parser.parse_args(arguments)
    try:
        env = gym.make(args.env).unwrapped
        mdp = TabularMDP.from_gymnasium(env, args.discount)
        columns = getattr(env, "ncol", None) or (getattr(env, "shape", None) or [None])[-1]
        env.close()
        write_playground(mdp, args.to, args.env, columns if args.columns is None else args.columns)
    except (gym.error.Error, ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(args.to)
    webbrowser.open(args.to.resolve().as_uri())


if __name__ == "__main__":
    main()
