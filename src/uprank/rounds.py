"""Logic written once as a generator, driven synchronously or by asyncio.

A plan is a generator that yields a question, receives its answer, and returns its result. It knows
nothing of threads or event loops; the two drivers below do. An error met while answering is thrown
into the plan at its ``yield``, so the plan decides what a failure means.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["Kept", "adrive", "drive", "in_background", "in_thread", "result_of", "run_coroutine"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

Kept: TypeAlias = "tuple[Result | None, BaseException | None]"
"""What a coroutine gave, or what it raised to end the program."""


def drive(plan: Generator[Question, Answer, Result], answer: Callable[[Question], Answer]) -> Result:
    """Run ``plan`` to its end, answering each question by a plain call."""
    try:
        question = next(plan)
        while True:
            try:
                reply = answer(question)
            except Exception as error:
                question = plan.throw(error)
            else:
                question = plan.send(reply)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        plan.close()  # where an interrupt ended the answer: let the plan tidy up


async def adrive(plan: Generator[Question, Answer, Result], answer: Callable[[Question], Awaitable[Answer]]) -> Result:
    """Run ``plan`` to its end, awaiting each answer; cancelling the task cancels the call in flight."""
    try:
        question = next(plan)
        while True:
            try:
                reply = await answer(question)
            except Exception as error:
                question = plan.throw(error)
            else:
                question = plan.send(reply)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        plan.close()  # likewise where the task was cancelled


def run_coroutine(coroutine: Coroutine[object, object, Result]) -> Result:
    """Run a coroutine from synchronous code, also where this thread already runs an event loop.

    The coroutine runs on one background loop of the process, so a notebook cell may call it.
    """
    future = in_background(coroutine)
    try:
        return result_of(future)
    except BaseException:
        future.cancel()  # e.g. KeyboardInterrupt: do not leave the coroutine running
        raise


def in_background(coroutine: Coroutine[object, object, Result]) -> Future[Kept[Result]]:
    """Start a coroutine on the background loop of the process.

    Returns:
        For :func:`result_of`; cancelling it cancels the coroutine.
    """
    import asyncio  # imported late: a third of the time of `import uprank`

    try:
        loop = _background.loop()
    except RuntimeError:
        coroutine.close()
        raise
    return asyncio.run_coroutine_threadsafe(_kept_in(coroutine), loop)


def result_of(future: Future[Kept[Result]]) -> Result:
    """Wait for a coroutine that was started by :func:`in_background`."""
    result, leaving = future.result()
    if leaving is not None:
        raise leaving
    return result  # type: ignore[return-value]  # set where nothing was raised


async def in_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own, without blocking the event loop.

    Unlike asyncio's pool, which has a few threads for the whole loop, this never makes a call wait for
    another one. Cancelling it leaves the thread to itself: its result is dropped, and neither the loop
    nor the interpreter waits for it at the end.

    Args:
        function: Sees the caller's context variables.

    Raises:
        RuntimeError: If there are no more threads to be had.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Result | None, BaseException | None]] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if not ended.done():  # e.g. cancelled
            ended.set_result((result, error))

    def work() -> None:
        result: Result | None = None
        raised: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # SystemExit too: somebody waits for this thread
            raised = error
        try:
            loop.call_soon_threadsafe(settle, result, raised)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            pass
        finally:
            del result, raised  # the error's traceback holds this frame, which must not hold the error

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="uprank-call", daemon=True).start()
    result, raised = await ended
    if raised is not None:
        try:
            raise raised
        finally:
            del raised, ended  # likewise
    return result  # type: ignore[return-value]  # set where nothing was raised


async def _kept_in(coroutine: Coroutine[object, object, Result]) -> Kept[Result]:
    """Hand on what would end the loop's thread, and with it everybody's coroutines, as a value."""
    try:
        return await coroutine, None
    except (SystemExit, KeyboardInterrupt) as leaving:
        return None, leaving


class _Background:
    """The one background event loop of this process, started on first use and again after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="uprank-async", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads to be had: the next call may try again
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            elif threading.current_thread() is self._thread:
                raise RuntimeError(
                    "a synchronous rank() was called from inside an async scorer; await arank() there instead"
                )
            return self._loop


_background = _Background()


def _forget_background() -> None:
    """Start afresh in a forked child: threads do not survive a fork."""
    global _background
    _background = _Background()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_background)
