"""One notebook, run by papermill in a kernel of its own, and kept as a page that opens offline.

In: a notebook's name and parameters. Out: `reports/<profile>/notebooks/NAME.{ipynb,html}`, or an error that names
the failing cell or says how the kernel ended.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import papermill
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from rossam_core.errors import RossamError
from rossam_core.files import cache_dir, write_text

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LONGEST_SOCKET = 98
"""Characters of a socket's path, which the system cuts at 104 to 108, without the `-N` that Jupyter adds."""
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what went wrong is told by the errors raised here


class KilledError(RossamError):
    """A notebook's process was killed from outside, as the system does when memory runs out."""


class Kernel:
    """The process a notebook runs in; it and the processes it starts can be weighed and ended from another thread.

    Args:
        variables: environment variables to add to those of this process.
    """

    def __init__(self, variables: Mapping[str, str] | None = None):
        self._variables = dict(variables or {})
        self._manager: AsyncKernelManager | None = None
        self._process: psutil.Process | None = None
        self._unwanted = threading.Event()
        self._sockets: tempfile.TemporaryDirectory | None = None

    def start(self, folder: Path) -> AsyncKernelManager:
        """Start the process in `folder`; what papermill drives it by is returned."""
        manager = AsyncKernelManager(kernel_name="python3", **self._transport())
        quiet = ["--log-level=40", "--HistoryManager.hist_file=:memory:"]
        variables = {**os.environ, "ROSSAM_CACHE": str(cache_dir()), **self._variables}  # one place, though cwd differs
        run_sync(manager.start_kernel)(cwd=str(folder), env=variables, extra_arguments=quiet)
        self._manager, self._process = manager, psutil.Process(manager.provisioner.pid)
        if self._unwanted.is_set():
            self.kill()
        return manager

    def stop(self) -> int | None:
        """End the process where it still runs; its exit status where it had ended by itself, -9 for signal 9."""
        manager, self._manager = self._manager, None
        if manager is None:
            return None
        status = run_sync(manager.provisioner.poll)()
        run_sync(manager.shutdown_kernel)(now=True)
        if self._sockets is not None:
            self._sockets.cleanup()
        return status

    def kill(self) -> None:
        """End the process and those it has started at once, or as soon as it has started."""
        self._unwanted.set()
        for process in reversed(self._family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _transport(self) -> dict[str, str]:
        """Sockets in a folder of its own: two runs at the same time may draw the same TCP ports."""
        if os.name != "posix":
            return {}
        self._sockets = tempfile.TemporaryDirectory(prefix="rossam-")
        path = str(Path(self._sockets.name) / "kernel")
        return {"transport": "ipc", "ip": path} if len(path) <= LONGEST_SOCKET else {}

    def memory(self) -> int:
        """Bytes that the process and those it has started hold for themselves alone."""
        held = 0
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                held += process.memory_full_info().uss
        return held

    def _family(self) -> list[psutil.Process]:
        """The process and those it has started, as far as they still run."""
        if self._process is None:
            return []
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = self._process.children(recursive=True)
        return [self._process, *children]


def read_notebook(path: Path) -> NotebookNode:
    """A notebook, with Python as its language where it names none.

    Raises:
        RossamError: no such file, no notebook, or one in another language.
    """
    if not path.exists():
        raise RossamError(path, "no such notebook", f"the notebooks lie in {NOTEBOOKS}")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        found = f"cannot be read as a notebook ({str(error).splitlines()[0][:120]})"
        raise RossamError(path, found, "open it in JupyterLab and save it, or write it anew") from error
    kernel = notebook.metadata.get("kernelspec", {})
    language = notebook.metadata.get("language_info", {}).get("name") or kernel.get("language", "python")
    if language != "python":
        raise RossamError(
            path, f"is in {language}, expected Python", "choose a Python kernel in JupyterLab and save it"
        )
    python = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata |= {"kernelspec": python, "language_info": {"name": "python"}}
    return notebook


def check_parameters(path: Path, parameters: Mapping[str, Any], source: Path) -> None:
    """Raise `RossamError` where the `parameters` cell of `path`, a copy of `source`, lacks one of `parameters`."""
    known = papermill.inspect_notebook(str(path))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise RossamError(
            source,
            f"unknown parameter{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            f"its cell with the tag `parameters` has {', '.join(known) or 'none'}",
        )


def execute(
    name: str,
    parameters: Mapping[str, Any],
    report_dir: Path,
    notebooks: Path = NOTEBOOKS,
    kernel: Kernel | None = None,
    *,
    boxes_only: bool = False,
) -> Path:
    """Run one notebook with `parameters` and keep it as HTML that opens offline, and as ipynb without outputs.

    Args:
        boxes_only: the data has no masks: cells with the tag `needs-masks` are left out, and a line says so.

    Raises:
        RossamError: not a Python notebook, unknown parameter, a failing cell (with its number, source and error),
            `KilledError`, or another death of the kernel.
    """
    source, kernel = notebooks / f"{name}.ipynb", kernel or Kernel()
    notebook = read_notebook(source)
    if boxes_only:
        notebook.cells = [_without_masks(cell) for cell in notebook.cells]
    target = report_dir / "notebooks" / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        draft, executed = Path(folder) / f"draft-{target.name}", Path(folder) / target.name
        nbformat.write(notebook, draft)
        check_parameters(draft, parameters, source)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                papermill.execute_notebook(
                    str(draft), str(executed), dict(parameters), kernel_name="python3", km=kernel.start(notebooks),
                    progress_bar=False, log_output=False, start_timeout=300,
                )  # fmt: skip
        except PapermillExecutionError as error:
            shutil.copyfile(executed, target.with_suffix(".failed.ipynb"))
            raise RossamError(
                f"{source}, cell {error.exec_count}",
                f"{error.ename}: {error.evalue}\n\n{_indent(error.source)}",
                f"mend the cause and start again; the run as far as it came is {target.with_suffix('.failed.ipynb')}",
            ) from error
        except DeadKernelError as error:
            raise _death(f"{source}{_cell_reached(executed)}", kernel.stop()) from error
        finally:
            kernel.stop()
        target.with_suffix(".failed.ipynb").unlink(missing_ok=True)
        notebook = nbformat.read(executed, as_version=4)
        notebook.metadata.pop("widgets", None)  # nothing can move a slider where no kernel answers
        write_text(target.with_suffix(".html"), _offline_html(notebook, name))
        write_text(target, nbformat.writes(_without_outputs(notebook)))  # its text is woven into the report
    return target


def _without_masks(cell: NotebookNode) -> NotebookNode:
    """The cell, or a line in its place where it needs masks."""
    if "needs-masks" not in cell.metadata.get("tags", ()):
        return cell
    return nbformat.v4.new_markdown_cell("*Left out: this needs masks, and the data has boxes only.*")


def _death(where: str, status: int | None) -> RossamError:
    """What to say of a kernel that ended by itself with that exit status."""
    if status == -9:
        return KilledError(
            where,
            "its kernel was killed (signal 9), which the system does when memory runs out",
            "close other programs, use a smaller --jobs, or lower inference.batch_size in the profile, and start again",
        )
    ended = f"by signal {-status} ({signal.strsignal(-status)})" if status and status < 0 else f"with status {status}"
    return RossamError(where, f"its kernel was ended {ended}", "run this notebook in JupyterLab to see where it ends")


def _cell_reached(executed: Path) -> str:
    """`, cell N`, counted as papermill counts: the code cell that was the last to begin."""
    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    code = [cell for cell in cells if cell.cell_type == "code"]
    begun = [i for i, cell in enumerate(code, 1) if cell.metadata.get("papermill", {}).get("start_time")]
    return f", cell {begun[-1]}" if begun else ""


def _indent(source: str) -> str:
    return "\n".join(f"      {line}" for line in source.strip().splitlines())


def _offline_html(notebook: NotebookNode, name: str) -> str:
    """The executed notebook as one HTML file that loads nothing from elsewhere."""
    exporter = HTMLExporter(template_name="lab", embed_images=True, theme="light")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    html, _ = exporter.from_notebook_node(_lighter(notebook), resources={"metadata": {"name": name}})
    return _without_remote_scripts(html)


def _lighter(notebook: NotebookNode) -> NotebookNode:
    """The same with every picture as PNG or JPEG, whichever is smaller: charts are the one, photographs the other."""
    notebook = copy.deepcopy(notebook)
    for data in (output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())):
        if "image/png" in data:
            png = base64.b64decode(data["image/png"])
            picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
            if len(jpeg) < len(png):
                del data["image/png"]
                data["image/jpeg"] = base64.b64encode(jpeg).decode()
    return notebook


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _without_remote_scripts(html: str) -> str:
    """Drop script tags that would be fetched (MathJax, require.js, widget manager): nothing here needs them."""
    pieces, rest = [], html
    while "<script" in rest:
        before, tag = rest.split("<script", 1)
        head = tag.split(">", 1)[0]
        body, rest = tag.split("</script>", 1)
        remote = "http://" in body or "https://" in body or 'src="//' in head
        pieces += [before] if remote else [before, "<script", body, "</script>"]
    return "".join([*pieces, rest])
