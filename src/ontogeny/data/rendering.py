"""Rendering of chat templates in a process of their own: they are programs, and one that loops or multiplies is ended.

A loop within one step of Python, such as a power of large numbers, cannot be interrupted from inside.

The process is forked once for a template, answers one request after the other, and ends with its parent. Where a system cannot fork, the
template runs in this process.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

_SPARE_BYTES = 2 * 2**30
"""Memory that a template may take beyond that of the program."""
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_lock = threading.Lock()
_running: "dict[int, RenderProcess]" = {}
"""By process: one that was forked has none yet."""


class RenderProcess:
    """A forked process that renders one template.

    Args:
        key: Names what `render` depends on.
        render: Called in the process with the arguments of each request.
    """

    def __init__(self, key: object, render: Callable[..., str]) -> None:
        self.key = key
        self.connection, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            with contextlib.suppress(BaseException):
                _serve(render, theirs)
            os._exit(0)
        theirs.close()
        self.ended = False

    def render(self, request: Mapping[str, Any], seconds: float) -> str:
        """The rendered template.

        Raises:
            ValueError: the template fails, takes too long, or takes too much memory.
            EOFError: the process has ended.
        """
        try:
            self.connection.send(request)
            if not self.connection.poll(seconds):
                raise ValueError(f"it takes more than {seconds:g} s")
            done, text = self.connection.recv()
        except ValueError:
            self.end()
            raise
        except OSError as error:
            self.end()
            raise EOFError from error
        if not done:
            raise ValueError(text)
        return str(text)

    def end(self) -> None:
        """End the process."""
        if not self.ended:
            self.ended = True
            self.connection.close()
            with contextlib.suppress(OSError):
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)


def render_apart(key: object, render: Callable[..., str], request: Mapping[str, Any], seconds: float) -> str:
    """`render(**request)`, in a process of its own.

    Args:
        key: Names what `render` depends on: the same key is answered by the same process.
        seconds: The longest time for one request.

    Raises:
        ValueError: the template fails, takes too long, or takes too much memory.
    """
    if not hasattr(os, "fork"):
        return render(**request)
    with _lock:
        for _ in range(2):
            running = _running.get(os.getpid())
            if running is None or running.ended or running.key != key:
                if running is not None:
                    running.end()
                running = _running[os.getpid()] = RenderProcess(key, render)
            try:
                return running.render(request, seconds)
            except EOFError:  # the thread that forked the process has ended, or its memory did not suffice
                running.end()
    raise ValueError(f"it takes more than {_SPARE_BYTES / 2**30:.0f} GiB of memory")


def _serve(render: Callable[..., str], connection: Connection) -> None:
    """Answer requests until the other end is closed."""
    _limit_process(connection.fileno())
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            answer = True, render(**request)
        except Exception as error:  # a template is a sandboxed program: it may raise anything
            answer = False, str(error) or type(error).__name__
        connection.send(answer)


def _limit_process(keep: int) -> None:
    """End with the parent, hold none of its files and locks, and take no more memory than is spare."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + _SPARE_BYTES, resource.RLIM_INFINITY))
