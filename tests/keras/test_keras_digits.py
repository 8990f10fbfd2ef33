"""`tools/keras_digits.py`, in short."""

import runpy
import subprocess
import sys
from pathlib import Path

from ngrl.keras import NaturalGradientModel  # noqa: F401  (selects Keras 2 before TensorFlow is imported)

TOOL = Path(__file__).parents[2] / "tools" / "keras_digits.py"


def test_it_prints_a_row_of_kfac_and_one_of_adam_s_best_rate(monkeypatch, capsys):
    arguments = ["--epochs", "2", "--batch", "64", "--learning_rates", "1e-9", "1e-3", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    *_, kfac, adam = capsys.readouterr().out.splitlines()
    assert kfac.startswith("| K-FAC | ")
    assert adam.startswith("| Adam 0.001, the best of 2 rates | ")
    assert float(kfac.split("|")[2]) < 0.5  # below ln 10 = 2.3, where it begins


def test_without_scikit_learn_it_says_so_in_one_line():
    blocked = f"import runpy, sys; sys.modules['sklearn'] = None; runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("which is missing: pip install scikit-learn")
