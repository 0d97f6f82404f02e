"""Make the pictures of the README from a real run: `python docs/pictures/make.py`.

It tests a small model (93 MB, downloaded once) with the embedded llama.cpp in a temporary folder,
after it has removed the weights of an entry that worked. Needs Linux or macOS, the
extras `llamacpp` and `test`, and Chromium for the picture of the report. Takes about a minute.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COLUMNS, LINES = 96, 80
WIDTH, HEIGHT = 1100, 860
"""Of the picture of the report, in pixels."""
MOST_BYTES = 150_000
"""Of a picture."""
COMMAND = ("pytest", "--lmstrix", "--all", "--tb=no", "-ra")
MODELS = """\
defaults: {engine: llamacpp, contexts: [2048, 4096, 8191]}
models:
  - {id: smollm2-135m-instruct, source: SOURCE, context_limit: 8192}
  - id: smollm2-135m-q8-cache
    source: SOURCE
    context_limit: 8192
    load: {kv_cache_type: q8_0, flash_attention: true}
  - {id: smollm2-asked-for-more, source: SOURCE, context_limit: 16384, contexts: [8191, 16383]}
  - {id: smollm2-of-last-week, source: copy.gguf, context_limit: 8192, contexts: [2048]}
  - {id: half-a-download, source: half.gguf, context_limit: 8192, contexts: [2048]}
"""


def main() -> None:
    """Make both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        prepare(project)
        run(project, "-k", "last-week", expected=0)
        (project / "copy.gguf").unlink()
        terminal(run(project, expected=1), HERE / "terminal.svg")
        report(project / "reports" / "report.html", HERE / "report.png")
    for path in (HERE / "terminal.svg", HERE / "report.png"):
        size = path.stat().st_size
        print(f"{path.relative_to(ROOT)}: {size:,} bytes")
        if size > MOST_BYTES:
            sys.exit(f"{path.name} is larger than {MOST_BYTES:,} bytes")


def prepare(project: Path) -> None:
    """Write the manifest and the weights that its entries need."""
    from pytest_lmstrix.manifest.read import read_manifest
    from pytest_lmstrix.weights.fetch import fetch

    (model,) = read_manifest(ROOT / "models.yaml", engine="llamacpp")
    weights = fetch(str(model.source), sha256=model.sha256, base_dir=ROOT)
    (project / "models.yaml").write_text(MODELS.replace("SOURCE", weights.as_posix()))
    (project / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(weights, project / "copy.gguf")
    with weights.open("rb") as whole, (project / "half.gguf").open("wb") as half:
        half.write(whole.read(weights.stat().st_size // 2))


def run(project: Path, *selection: str, expected: int) -> pyte.Screen:
    """Return the screen of a terminal after a run that exits with `expected`."""
    unset = ("PYTEST_ADDOPTS", "NO_COLOR", "CI", "GITHUB_STEP_SUMMARY", "PYTEST_XDIST_WORKER",
             "COLUMNS", "LINES")  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TERM": "xterm", "PYTHONPATH": str(ROOT)}
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, "-m", *COMMAND, "--no-header", *selection]
    with subprocess.Popen(command, cwd=project, env=environment, stdin=slave, stdout=slave,
                          stderr=slave) as process:  # fmt: skip
        os.close(slave)
        with contextlib.suppress(OSError):  # Linux: the other end is closed
            while data := os.read(master, 65536):
                stream.feed(data.replace(f"{project}/".encode(), b""))
    os.close(master)
    if process.returncode != expected:
        print("\n".join(screen.display))
        sys.exit(f"the run exited with {process.returncode}")
    return screen


def terminal(screen: pyte.Screen, path: Path) -> None:
    """Draw `screen` as SVG, without the lines that have a path of this machine."""
    text = Text(f"$ {' '.join(COMMAND)}\n")
    for number, line in enumerate(screen.display):
        if line.strip() and "Generated html report" not in line:
            cells = [screen.buffer[number][column] for column in range(len(line.rstrip()))]
            for cell in cells:
                colour = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
                text.append(cell.data, f"{'bold ' if cell.bold else ''}{colour}".strip())
        if not any(each.strip() for each in screen.display[number:]):
            break
        if "Generated html report" not in line:
            text.append("\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(text)
    style = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(
        title="a night", theme=DIMMED_MONOKAI, code_format=style, unique_id="terminal"
    )
    if "http" in svg.replace("http://www.w3.org", "").replace("https://www.textualize.io", ""):
        sys.exit("the picture of the terminal refers to the network")
    path.write_text(svg, encoding="utf-8", newline="\n")


def report(page: Path, path: Path) -> None:
    """Take a picture of the first screen of `page`."""
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                    f"--screenshot={path}", f"--window-size={WIDTH},{HEIGHT}", page.as_uri()],
                   check=True, capture_output=True, timeout=120)  # fmt: skip


if __name__ == "__main__":
    main()
