"""What ``python -m sb3_softac.zoo`` says to someone who does not know it."""

import sys

import pytest

from sb3_softac.zoo.__main__ import SCRIPTS, main


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zoo", flag])
    main()
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m sb3_softac.zoo SCRIPT ...") and "resume RUN_FOLDER" in text and "got" not in text
    assert all(name in text for name in SCRIPTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a SCRIPT is missing"),
        (["trian"], "there is no script 'trian', did you mean 'train'?"),
        (["--algo"], "no script '--algo'"),
    ],
)
def test_wrong_scripts(arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    with pytest.raises(SystemExit, match=f"usage: python -m sb3_softac.zoo SCRIPT(.|\n)*error: .*{message.replace('?', '.')}"):
        main()
