"""The two drivers of plans, and the background loop that runs coroutines for synchronous callers."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import textwrap
import threading
import warnings

import pytest

from uprank.rounds import adrive, drive, in_thread, run_coroutine


def plan_of_sums(log):
    """Asks twice, with the second question made of the first answer; says what became of each."""
    try:
        total = 0
        for question in (1, 2):
            try:
                total += yield question + total
            except ValueError as error:
                log.append(f"caught {error}")
                total += 100
        return total
    finally:
        log.append("closed")


def tenfold(question):
    return question * 10


def failing_once(question):
    if question == 1:
        raise ValueError("first")
    return question


def in_a_fresh_interpreter(source, timeout=20):
    """Run a script that may fork, hang or be interrupted; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- the drivers


@pytest.mark.parametrize("driver", ["drive", "adrive"])
@pytest.mark.parametrize(("answer", "result"), [(tenfold, 130), (failing_once, 202)])
async def test_both_drivers_run_a_plan_to_the_same_result(driver, answer, result):
    async def aanswer(question):
        await asyncio.sleep(0)
        return answer(question)

    log = []
    plan = plan_of_sums(log)
    assert (drive(plan, answer) if driver == "drive" else await adrive(plan, aanswer)) == result
    assert log == (["caught first", "closed"] if answer is failing_once else ["closed"])


@pytest.mark.parametrize("driver", ["drive", "adrive"])
async def test_an_error_that_the_plan_does_not_catch_reaches_the_caller(driver):
    error = KeyError("gone")

    def answer(question):
        raise error

    async def aanswer(question):
        raise error

    log = []
    with pytest.raises(KeyError) as caught:
        drive(plan_of_sums(log), answer) if driver == "drive" else await adrive(plan_of_sums(log), aanswer)
    assert caught.value is error
    assert log == ["closed"]


@pytest.mark.parametrize("driver", ["drive", "adrive"])
async def test_a_plan_without_questions_is_not_answered(driver):
    def plan():
        return "at once"
        yield

    def answer(question):
        raise AssertionError

    result = drive(plan(), answer) if driver == "drive" else await adrive(plan(), answer)
    assert result == "at once"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_is_not_thrown_into_the_plan_but_ends_it(interrupt):
    seen, log = [], []

    def plan():
        try:
            yield 1
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            log.append("closed")

    def answer(question):
        raise interrupt

    with pytest.raises(interrupt) as caught:
        drive(plan(), answer)
    assert seen == [GeneratorExit]  # from being closed
    assert log == ["closed"], caught  # at once, not when the traceback is let go


async def test_cancelling_a_driven_plan_closes_it():
    log, started = [], asyncio.Event()

    async def never(question):
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(adrive(plan_of_sums(log), never))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["closed"]


# --- the background loop


async def _where():
    return threading.current_thread().name


def test_a_coroutine_runs_on_one_background_thread():
    assert run_coroutine(_where()) == "uprank-async"
    assert threading.current_thread().name != "uprank-async"
    run_coroutine(_where())
    assert [thread.name for thread in threading.enumerate()].count("uprank-async") == 1


async def test_a_coroutine_may_be_run_while_this_thread_runs_a_loop():
    assert run_coroutine(_where()) == "uprank-async"


def test_the_coroutines_error_is_the_callers():
    async def fails():
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"):
        run_coroutine(fails())


def test_many_threads_share_the_loop():
    started = threading.Barrier(8, timeout=10)
    inside = []

    async def meet():
        inside.append(threading.current_thread().name)
        while len(inside) < 8:  # ends only if all eight are in flight at once
            await asyncio.sleep(0.001)
        return True

    def call(results):
        started.wait()
        results.append(run_coroutine(asyncio.wait_for(meet(), 10)))

    results = []
    threads = [threading.Thread(target=call, args=(results,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8
    assert set(inside) == {"uprank-async"}


def test_context_variables_reach_the_coroutine():
    variable = contextvars.ContextVar("variable", default="none")

    async def read():
        return variable.get()

    token = variable.set("the caller's")
    try:
        assert run_coroutine(read()) == "the caller's"
    finally:
        variable.reset(token)


def test_waiting_for_the_background_loop_on_itself_is_refused():
    async def inner():
        return 1

    async def outer():
        return run_coroutine(inner())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="await arank"):
            run_coroutine(outer())
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []


def test_a_new_loop_is_started_after_a_fork():
    printed = in_a_fresh_interpreter("""
        import os
        from uprank.rounds import run_coroutine

        async def twice(number):
            return 2 * number

        assert run_coroutine(twice(1)) == 2
        child = os.fork()
        if child == 0:
            os._exit(run_coroutine(twice(21)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), run_coroutine(twice(2)))
    """)
    assert printed == "42 4"


def test_interrupting_the_waiting_thread_cancels_the_coroutine():
    printed = in_a_fresh_interpreter("""
        import asyncio, signal, threading
        from uprank.rounds import run_coroutine

        cancelled = threading.Event()

        async def forever():
            interrupt = lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            threading.Timer(0.2, interrupt).start()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        try:
            run_coroutine(forever())
        except KeyboardInterrupt:
            print("interrupted", cancelled.wait(10))
    """)
    assert printed == "interrupted True"


def test_a_coroutine_that_exits_does_not_take_the_loop_with_it():
    printed = in_a_fresh_interpreter(
        """
        import os, threading
        from uprank.rounds import run_coroutine

        threading.Timer(3, os._exit, (9,)).start()  # a lost loop would leave us waiting for ever

        async def leave():
            raise SystemExit(5)

        async def stay():
            return "still here"

        try:
            run_coroutine(leave())
        except BaseException as error:
            print(type(error).__name__, run_coroutine(stay()), flush=True)
        os._exit(0)
    """
    )
    assert printed == "SystemExit still here"


# --- threads of their own


async def test_calls_in_threads_never_wait_for_each_other():
    together = threading.Barrier(40, timeout=10)  # more than asyncio's pool ever has threads

    assert sorted(await asyncio.gather(*(in_thread(together.wait) for _ in range(40)))) == list(range(40))


async def test_a_thread_of_its_own_sees_the_callers_context():
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")

    def read():
        seen = variable.get()
        variable.set("the thread's")
        return seen

    assert await in_thread(read) == "the caller's"
    assert variable.get() == "the caller's"


@pytest.mark.parametrize("error", [LookupError("inside"), asyncio.CancelledError()], ids=["error", "cancelled"])
async def test_what_is_raised_in_a_thread_is_raised_in_the_caller(error):
    def fails():
        raise error

    with pytest.raises(type(error)) as caught:
        await in_thread(fails)
    assert caught.value is error


async def test_a_stop_in_a_thread_leaves_nobody_waiting():
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(in_thread(iter(()).__next__), 5)


async def test_an_error_in_a_thread_is_not_kept_alive_by_its_own_frames():
    class Failure(Exception):
        pass

    async def failing():
        def fails():
            raise Failure

        with pytest.raises(Failure):
            await in_thread(fails)

    gc.collect()
    gc.disable()  # so that a circle would stay
    try:
        await failing()
        await asyncio.sleep(0)  # lets go of what woke us
        for thread in threading.enumerate():
            if thread.name == "uprank-call":
                thread.join(10)
        assert [found for found in gc.get_objects() if type(found) is Failure] == []
    finally:
        gc.enable()


async def test_a_cancelled_call_leaves_its_thread_behind():
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def slow():
        begun.set()
        release.wait(10)
        ended.set()
        return "too late"

    task = asyncio.ensure_future(in_thread(slow))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    release.set()
    assert await in_thread(lambda: ended.wait(10))
    await asyncio.sleep(0)  # the late result arrives, and nobody minds


def test_neither_the_loop_nor_the_interpreter_waits_for_a_thread_left_behind():
    printed = in_a_fresh_interpreter(
        """
        import asyncio, threading, time
        from uprank.rounds import in_thread

        release, ended = threading.Event(), threading.Event()

        def slow():
            release.wait(60)
            ended.set()

        def forever():
            time.sleep(60)

        async def main():
            for function in (slow, forever):
                try:
                    await asyncio.wait_for(in_thread(function), 0.05)
                except asyncio.TimeoutError:
                    pass

        failures = []
        threading.excepthook = failures.append
        asyncio.run(main())
        release.set()  # whose end finds the loop closed
        ended.wait(10)
        for thread in threading.enumerate():
            if thread.name == "uprank-call":
                thread.join(0.2)
        print("done", failures)
        """
    )
    assert printed == "done []"
